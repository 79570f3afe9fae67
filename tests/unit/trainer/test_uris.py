"""URIs of sources, taken apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer import layout
from falcon_trainer.uris import ADAPTER, DATA, MODEL, PUBLICATION, HubPath, hub_data, problem


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("hf://acme/tickets", HubPath("acme/tickets")),
        ("hf://acme/tickets/", HubPath("acme/tickets")),
        ("hf://acme/tickets/data/2024.json", HubPath("acme/tickets", None, "data/2024.json")),
        ("hf://acme/tickets@v1.2", HubPath("acme/tickets", "v1.2")),
        ("hf://acme/tickets@v1.2/data", HubPath("acme/tickets", "v1.2", "data")),
        ("hf://acme/tickets@feature%2Fa/data", HubPath("acme/tickets", "feature/a", "data")),
        ("hf://acme/tickets@refs/convert/parquet", HubPath("acme/tickets", "refs/convert/parquet")),
        ("hf://acme/tickets@refs/convert/parquet/en", HubPath("acme/tickets", "refs/convert/parquet", "en")),
        ("hf://acme/tickets@refs/pr/7/data", HubPath("acme/tickets", "refs/pr/7", "data")),
        ("hf://acme/tickets/a@b", HubPath("acme/tickets", None, "a@b")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_data_set_of_the_hub_has_a_name_a_revision_and_a_path(uri: str, found: HubPath) -> None:
    assert hub_data(uri) == found


@given(st.sampled_from(sorted(DATA)), st.text(max_size=40))
def test_any_text_is_an_address_or_is_refused_with_a_clause(scheme: str, rest: str) -> None:
    for grammar in (DATA, MODEL, ADAPTER, PUBLICATION):
        sentence = problem(f"{scheme}://{rest}", grammar)
        assert sentence is None or sentence.strip()


@given(st.sampled_from(["pvc", "configmap"]), st.text("ab./-_", max_size=12))
def test_whatever_is_mounted_lies_inside_its_mount(scheme: str, rest: str) -> None:
    uri = f"{scheme}://{rest}"
    if problem(uri, DATA) is None:
        path = layout.source_path(uri)
        assert ".." not in path.parts
        mount = layout.config_map_folder("x").parent if scheme == "configmap" else layout.SOURCES
        assert path.is_relative_to(mount / rest.partition("/")[0])


@pytest.mark.parametrize(
    ("uri", "clause"),
    [
        ("pvc://models/team/falcon", None),
        ("pvc://models", "a folder of its own"),
        ("pvc://models/", "a folder of its own"),
        ("pvc://models/../falcon", "must stay inside the claim"),
        ("s3://bucket/team/falcon/", None),
        ("s3://bucket", "a folder of its own"),
        ("hf://me/falcon", None),
        ("hf://me/falcon@dolly", None),
        ("hf://me/falcon/folder", "fills a whole repository"),
        ("https://host/falcon", "https:// cannot be used here"),
    ],
)
def test_a_result_gets_a_place_of_its_own(uri: str, clause: str | None) -> None:
    found = problem(uri, PUBLICATION)
    assert found is None if clause is None else clause in str(found)
