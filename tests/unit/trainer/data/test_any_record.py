"""Records of any JSON at all: they become documents, or say which of their fields is at fault."""

from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_trainer.data.formats import InvalidRecord, Kind
from tests.unit.trainer.conversations import DIALOGUE, END, conversion

FORMATS = ("auto", "dolly", "alpaca", "chat", "sharegpt", "prompt-completion", "text")
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4)
words = st.sampled_from(["Carp", "", " ", "\ud800", END, "text", "system", "user", "assistant", "human", "gpt", "tool"])
keys = st.sampled_from(["role", "content", "from", "value", "weight", "tool_calls", "type", "text"])
anything = st.recursive(
    words | scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
said = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": words | anything})
listing = st.lists(said | anything, max_size=4) | anything
PLAIN = ("instruction", "context", "response", "input", "output", "text", "system", "tools")
LISTS = ("messages", "conversations", "prompt", "completion")
json_records = st.dictionaries(st.sampled_from(PLAIN), words | scalars, max_size=4).flatmap(
    lambda plain: st.dictionaries(st.sampled_from(LISTS), listing, max_size=2).map(lambda lists: plain | lists)
)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(FORMATS), st.booleans(), st.lists(json_records, min_size=1, max_size=3))
def test_whatever_a_record_holds_it_becomes_a_document_or_an_invalid_record_with_its_field(
    name: str, own: bool, records: list[dict[str, Any]]
) -> None:
    converted = conversion(format=name, template=DIALOGUE if own and name != "text" else None)
    for record in records:
        try:
            document, sample = converted.document(record), converted.sample(record)
        except InvalidRecord as error:
            refused = error
        else:
            assert document[-1].answer
            assert all(segment.text for segment in document)
            "".join(segment.text for segment in document).encode()
            assert sample["prompt"]
            continue
        assert refused.field
        assert refused.field in str(refused)
        assert refused.kind in get_args(Kind)
        str(refused).encode()
