"""What a client may ask, as pydantic models: a field that would be ignored is refused by name."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from falcon_trainer.serve.errors import ApiError, invalid

MAX_STOPS = 4
"""As OpenAI's API."""
MAX_STOP_CHARACTERS = 256

T = TypeVar("T", bound="Ask")


def only(*values: object) -> BeforeValidator:
    """A field that OpenAI knows and this server obeys only where it changes nothing."""

    def check(value: object) -> None:
        if value is not None and not any(value == known and type(value) is type(known) for known in values):
            raise PydanticCustomError("unsupported", "This server does not support this value; leave the field out")

    return BeforeValidator(check)


Unsupported = Annotated[None, only()]
OnlyFalse = Annotated[None, only(False)]
OnlyZero = Annotated[None, only(0, 0.0)]
OnlyOne = Annotated[None, only(1)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]


class Strict(BaseModel):
    """No coercion, no unknown fields; a field that is null counts as absent, as clients echo answers with nulls."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class StreamOptions(Strict):
    """How a stream is told."""

    include_usage: bool = False
    include_obfuscation: OnlyFalse = None


class Ask(Strict):
    """What both endpoints know."""

    model: str = Field(min_length=1)
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[Stop], Field(max_length=MAX_STOPS)] = []
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, description="Accepted: it says who asks and changes no answer.")
    n: OnlyOne = None
    frequency_penalty: OnlyZero = None
    presence_penalty: OnlyZero = None
    logit_bias: Annotated[None, only({})] = None

    @model_validator(mode="before")
    @classmethod
    def _stops_as_list(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("stop"), str):
            return data | {"stop": [data["stop"]]}
        return data


class TextPart(Strict):
    """One part of a message's content."""

    type: Literal["text"]
    text: str


class Message(Strict):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] = ""

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class TextFormat(Strict):
    """The only format of answers."""

    type: Literal["text"]


class ChatAsk(Ask):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: OnlyFalse = None
    top_logprobs: OnlyZero = None
    response_format: TextFormat | None = None
    tools: Annotated[None, only([])] = None
    tool_choice: Annotated[None, only("none", "auto")] = None
    parallel_tool_calls: Annotated[None, only(True, False)] = None
    store: OnlyFalse = None
    modalities: Annotated[None, only(["text"])] = None


class CompletionAsk(Ask):
    """Body of POST /v1/completions."""

    prompt: str
    logprobs: Unsupported = None
    echo: OnlyFalse = None
    best_of: OnlyOne = None
    suffix: Unsupported = None

    @model_validator(mode="before")
    @classmethod
    def _one_prompt(cls, data: Any) -> Any:
        """A list of one prompt is that prompt."""
        if isinstance(data, dict) and isinstance(prompts := data.get("prompt"), list) and len(prompts) == 1:
            return data | {"prompt": prompts[0]}
        return data


def parse(kind: type[T], body: bytes) -> T:
    """The checked request. Raises ApiError, which names the first field that is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return invalid(f"The body is no valid JSON: {first['msg']}.", param=None, code="invalid_json")
    path = _path(first["loc"])
    if first["type"] == "missing":
        return invalid(f"{path} is missing.", param=path, code="missing_required_parameter")
    if first["type"] == "extra_forbidden":
        return invalid(f"{path}: this server does not know this field.", param=path, code="unknown_parameter")
    code = "unsupported_value" if first["type"] == "unsupported" else "invalid_value"
    return invalid(f"{path or 'body'}: {first['msg']}.", param=path or None, code=code)


def _path(location: tuple[int | str, ...]) -> str:
    """`messages[0].content`; names of union members, which pydantic adds, are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in {"str", "int", "float"}:
            path += f".{part}" if path else part
    return path
