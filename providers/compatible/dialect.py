"""The schema of `[dialect]` in a compatible vendor's TOML file: its differences from OpenAI's API, as data.

Each dataclass is a table of the file, and its attributes are the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from providers.adapter import Capabilities
from providers.auth import AuthScheme, Bearer, HeaderKey, NoAuth
from providers.catalogue import CatalogueError
from providers.catalogue.takes import CALL_ID_FORMS, SCHEMA_RULES, SYSTEM_FORMS, Takes
from providers.catalogue.toml_schema import DAY, FLAG, TABLE, TEXT, TEXTS, Shape, check_table, shapes_of, value_of
from providers.chat import FinishReason
from providers.failures import LACKABLE, FailureKind
from providers.formats.request_options import SAFETY_IDENTIFIER
from providers.matching.requirements import CACHE_CONTROL, FEATURES, REASONING
from providers.openai_json.read_answer import Answers
from providers.reading.errors import ErrorRules, rules_of
from providers.reading.finishes import Ending
from providers.reading.json_object import JSON_OBJECT
from providers.value import Value

DIALECT: Mapping[str, Shape] = {
    **{"source": TEXT, "as_of": DAY, "auth": TEXT, "features": TEXTS, "parameters": TEXTS},
    "emulated": TEXTS,
    "lacks": TEXTS,
    "by_model": TEXTS,
    "unconfirmed": FLAG,
    "chats": FLAG,
    **{"request": TABLE, "thinking": TABLE, "answer": TABLE, "errors": TABLE},
}
_FINISHES: tuple[FinishReason, ...] = ("stop", "length", "tool_calls", "content_filter", "other")
_CLOSED = {
    "reasoning_back": ("", "kept", "required", "always"),
    "system": SYSTEM_FORMS,
    "turns": ("", "alternate", "spoken"),
    "call_ids": CALL_ID_FORMS,
    "path_by": ("", "azure"),
}
_KINDS = ", ".join(kind.value for kind in FailureKind)
_OR_BEARER = "|bearer"


class DialectError(ValueError):
    """A compatible vendor's TOML file is wrong. The message names the place and what was expected."""


def check_keys(data: object, place: str, known: type | Mapping[str, Shape]) -> Mapping[str, Any]:
    """Return the table if each of its keys is known, with a value of the right type.

    Raises DialectError with the `place`. `known` is a dataclass whose attributes are the keys, or the keys with types.
    """
    try:
        return check_table(place, data, shapes_of(known) if isinstance(known, type) else known)
    except CatalogueError as error:
        raise DialectError(str(error)) from None


class Prefill(Value, frozen=True):
    """How to make the model continue the assistant's last message, if the vendor has a way of its own."""

    message: Mapping[str, object] = {}
    """Fields that are added to the last message."""
    body: Mapping[str, object] = {}
    """Fields that are added to the request."""
    path: str = ""
    """The path to use instead of `Requests.path`."""
    streamed: bool = False
    """Whether a stream is requested in any case, because only a whole answer repeats the message."""


class Thinking(Value, frozen=True):
    """A way to switch thinking on and off. If a vendor has several ways, `thinking` of a model names its way."""

    on: Mapping[str, object] = {}
    """Fields of the body that switch thinking on."""
    off: Mapping[str, object] = {}
    """Fields of the body that switch thinking off."""
    effort: str = ""
    """The field for the reasoning effort, or the path of a member. Its values are the model's `efforts`."""
    efforts: tuple[str, ...] = ()
    """The efforts of a model whose own are unknown."""
    ladder: Mapping[str, str] = {}
    """Replaces an effort that the model does not know by one that it knows."""
    budget: str = ""
    """The field for a number of thinking tokens."""
    budgets: Mapping[str, int] = {}
    """The number of tokens for each effort."""
    least_budget: int = 1
    """The smallest number of thinking tokens that the vendor takes."""
    forced_off: bool = False
    """Whether thinking must be off if the request forces a tool call."""
    streamed: bool = False
    """Whether the model thinks only in streams."""


class Requests(Value, frozen=True):
    """How a request differs from OpenAI's. `Takes` describes the rest."""

    base_path: str = ""
    """The base path for an endpoint that is configured without a path, if it differs from the first site's."""
    path: str = "/chat/completions"
    """The path below the base path."""
    path_by: str = ""
    """The function that builds path and query from the target (`azure`)."""
    query: Mapping[str, str] = {}
    """The query of the URL."""
    max_tokens: str = "max_tokens"
    """The field for the limit of the answer's tokens."""
    bounded_tokens: bool = False
    """Whether the vendor refuses a limit above the model's maximum, so that it must be lowered."""
    rename: Mapping[str, str] = {}
    """The vendor's name of a parameter, for each name of ours."""
    bounds: Mapping[str, tuple[float, float]] = {}
    """The accepted range of a number. A value beyond it is replaced by the nearest; only `n` is refused."""
    constants: Mapping[str, object] = {}
    """Fields that are always sent."""
    streaming: Mapping[str, object] = {}
    """Fields that are sent with a stream."""
    streaming_tools: Mapping[str, object] = {}
    """Fields that are sent with tools in a stream."""
    with_tools: Mapping[str, object] = {}
    """Fields that are sent with tools if the request does not set them."""
    stream_options: bool = True
    """Whether usage in a stream must be requested with `stream_options`."""
    developer: bool = False
    """Whether the role `developer` exists. Otherwise it becomes `system`."""
    system: str = "first"
    turns: str = ""
    """`alternate` makes user (or tool) and assistant messages alternate, without blank ones, and ends with a user
    message, a tool result, or an answer to continue. `spoken` only removes blank messages."""
    document_url: bool = False
    """Whether a file is a `document_url` with its content."""
    sound_uri: bool = False
    """Whether audio is a `data:` URI instead of plain base64."""
    most_tools: int | None = None
    """The maximum number of tools that are sent."""
    n_beside_tools: bool = True
    """Whether `n` above 1 is allowed together with tools."""
    details: frozenset[str] = frozenset({"low", "high"})
    """The accepted values of an image's `detail`, if `image_detail` is among the parameters."""
    choices: Mapping[str, str] = {}
    """The vendor's value for each `tool_choice`. `omit` leaves the tools out, `leave` leaves the choice out, and `only`
    sends the one tool and requires a call."""
    call_ids: str = ""
    name_characters: int = 64
    id_characters: int | None = None
    schemas: frozenset[str] = frozenset()
    reasoning_back: str = ""
    """Whether reasoning that the client sends is sent back: `always`, or only to a model that reasons (`kept`).
    `required` sends it in turns with tool calls, and a blank text if the client sends none. With each of them,
    `reasoning_content` is one of the parameters."""
    reasoning_fields: tuple[str, ...] = ("reasoning_content",)
    """The fields for it."""
    reasoning_format: str = ""
    """The `format` of the `reasoning_details` that it is sent back in, in place of the fields."""
    cache_marks: bool = False
    """Whether parts and tools may have `cache_control`, which is then one of the parameters."""
    parses_arguments: bool = False
    """Whether arguments of calls in the history must be a JSON object, as at every server of one's own (with
    `by_model`). Others are sent as `_raw` of one."""
    json_word: bool = False
    """Whether a JSON response format requires the word "json" in a message."""
    most_stops: int | None = None
    """The maximum number of stop sequences."""
    stop_characters: int | None = None
    """The maximum length of a stop sequence."""
    user_bytes: int | None = None
    """The maximum length of `user`. A longer one is replaced by its SHA-256."""
    prefill: Prefill | None = None
    """How to continue the assistant's last message."""
    count_path: str = ""
    """The path, without the base path, that counts the tokens of the messages and tools of a chat."""

    @property
    def takes(self) -> Takes:
        """The parts of a request that the vendor's API takes."""
        return Takes(
            self.system,
            self.name_characters,
            call_ids=self.call_ids,
            id_characters=self.id_characters,
            schemas=self.schemas,
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths below the base path: `path`, and the path for prefill if it differs."""
        prefill_path = self.prefill.path if self.prefill is not None else ""
        return (self.path, prefill_path) if prefill_path else (self.path,)


class CompatibleDialect(Value, frozen=True):
    """The differences of one vendor from OpenAI's API."""

    auth: AuthScheme
    """`bearer`, `none`, `header:NAME`, or `header:NAME|bearer` if a bearer token may replace the key."""
    capabilities: Capabilities
    """The features and parameters that the API can express. A model may support fewer."""
    requests: Requests
    """Differences of requests (`[dialect.request]`)."""
    thinking: Mapping[str, Thinking]
    """The ways to switch thinking, by name (`[dialect.thinking]`)."""
    answers: Answers
    """Differences of answers (`[dialect.answer]`)."""
    errors: ErrorRules
    """Differences of errors (`[dialect.errors]`)."""
    source: str = ""
    """The source of these facts."""
    emulated: frozenset[str] = frozenset()
    """The features, also among `capabilities`, that the API does not have and the model is asked for in words. Only
    `json_object` is possible."""
    lacks: frozenset[str] = frozenset()
    """Failure kinds that the vendor never reports, such as `content_filter`. The conformance kit does not ask for
    them."""
    unconfirmed: bool = False
    """Whether there are no two recordings from the vendor's documentation or a real call."""
    server_features: frozenset[str] = frozenset()
    """The features of an operator's own server with every model: all but those of `by_model`."""
    chats: bool = True
    """Whether it answers chats."""

    @property
    def native(self) -> frozenset[str]:
        """The features that the vendor's API has itself."""
        return self.capabilities.features - self.emulated


def read_dialect(data: Mapping[str, Any]) -> CompatibleDialect:
    """Return the dialect of a parsed `[dialect]` table. Raises DialectError."""
    check_keys(data, "dialect", DIALECT)
    features = frozenset(data.get("features", ()))
    if unknown := features - FEATURES:
        raise DialectError(f"dialect.features: {min(unknown)!r} is not known; expected {', '.join(sorted(FEATURES))}")
    emulated = frozenset(data.get("emulated", ()))
    if not emulated <= features & {JSON_OBJECT}:
        raise DialectError(f"dialect.emulated: can only be [{JSON_OBJECT!r}], which must be in dialect.features too")
    # Servers of one's own parse them for the chat template.
    requests = _requests({"parses_arguments": "by_model" in data, **data.get("request", {})})
    if ("prefill" in features) != (requests.prefill is not None):
        raise DialectError(
            "dialect.request.prefill: is required if `features` has 'prefill', and not allowed otherwise"
        )
    try:
        errors = rules_of(data.get("errors", {}), "dialect.errors")
    except CatalogueError as error:
        raise DialectError(str(error)) from None
    thinking = data.get("thinking", {})
    for name, one in thinking.items():
        check_keys(one, f"dialect.thinking.{name}", Thinking)
    return CompatibleDialect(
        auth=_auth(str(data.get("auth", "bearer"))),
        capabilities=Capabilities(features, _parameters(data.get("parameters", ()), requests)),
        requests=requests,
        thinking={name: value_of(Thinking, one) for name, one in thinking.items()},
        answers=_answers(data.get("answer", {})),
        errors=errors,
        source=str(data.get("source", "")),
        emulated=emulated,
        lacks=_lacks(data),
        unconfirmed=data.get("unconfirmed", False),
        server_features=features - frozenset(data["by_model"]) if "by_model" in data else frozenset(),
        chats=data.get("chats", True),
    )


def _lacks(data: Mapping[str, Any]) -> frozenset[str]:
    lacks = frozenset(data.get("lacks", ()))
    if unknown := lacks - LACKABLE:
        raise DialectError(
            f"dialect.lacks: {min(unknown)!r} is not a failure kind that a vendor may lack; "
            f"expected {', '.join(sorted(LACKABLE))}"
        )
    errors = data.get("errors", {})
    for table in ("codes", "types", "messages"):
        if both := lacks & set(errors.get(table, {})):
            raise DialectError(
                f"dialect.lacks: {min(both)!r} is also in dialect.errors.{table}; remove it from one of the two"
            )
    return lacks


def _parameters(words: Iterable[str], requests: Requests) -> frozenset[str]:
    """Return the parameters. A vendor with a field for the end user supports both of OpenAI's fields for it."""
    known = frozenset(words)
    known |= ({REASONING} if requests.reasoning_back else set()) | ({CACHE_CONTROL} if requests.cache_marks else set())
    return known | {SAFETY_IDENTIFIER} if "user" in known else known


def _auth(word: str) -> AuthScheme:
    name, _, header = word.partition(":")
    if name == "header" and header:
        return HeaderKey(header.removesuffix(_OR_BEARER), header.endswith(_OR_BEARER))
    if word not in ("bearer", "none"):
        known = f"'bearer', 'none', 'header:NAME' or 'header:NAME{_OR_BEARER}'"
        raise DialectError(f"dialect.auth: {word!r} is not known; expected {known}")
    return Bearer() if word == "bearer" else NoAuth()


def _requests(data: Mapping[str, Any]) -> Requests:
    place = "dialect.request"
    check_keys(data, place, Requests)
    values: dict[str, Any] = dict(data)
    if "max_tokens" in data.get("rename", {}):
        raise DialectError(f"{place}.rename: set the name of max_tokens with {place}.max_tokens instead")
    if unknown := set(data.get("schemas", ())) - set(SCHEMA_RULES):
        raise DialectError(f"{place}.schemas: {min(unknown)!r} is not known; expected {', '.join(SCHEMA_RULES)}")
    if "prefill" in data:
        check_keys(data["prefill"], f"{place}.prefill", Prefill)
        values["prefill"] = value_of(Prefill, data["prefill"])
    for name, words in _CLOSED.items():
        if data.get(name, words[0]) not in words:
            raise DialectError(
                f"{place}.{name}: {data[name]!r} is not known; expected one of {', '.join(filter(None, words))}"
            )
    return value_of(Requests, values)


def _answers(data: Mapping[str, Any]) -> Answers:
    place = "dialect.answer"
    check_keys(data, place, Answers)
    values: dict[str, Any] = dict(data)
    for name in ("finish", "events"):
        values[name] = {word: _ending(f"{place}.{name}.{word}", to) for word, to in data.get(name, {}).items()}
    return value_of(Answers, values)


def _ending(place: str, word: str) -> Ending:
    if (finish := next((one for one in _FINISHES if word == one), None)) is not None:
        return finish
    try:
        return FailureKind(word)
    except ValueError:
        raise DialectError(f"{place}: {word!r} is not a failure kind; expected one of {_KINDS}") from None
