"""Check requests against the vendors' own schemas: the types of their Python clients, and botocore's service model.

`schema_errors` lists the errors of a schema, each with its place. `openai` and `botocore` are development tools;
`anthropic` and `google-genai` come with `make install-sdks`, and `has_schema` reports whether they are installed.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import SchemaValidator

from providers.json_values import as_map, dumps
from providers.testkit.simulator import IncomingRequest

_PACKAGES = {
    "openai": "openai",
    **dict.fromkeys(("anthropic", "anthropic-vertex"), "anthropic"),
    **dict.fromkeys(("gemini", "vertex"), "google.genai"),
}
_STRICT = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


def has_schema(vendor: str) -> bool:
    """Return whether the package that holds the vendor's schema is installed."""
    try:
        return find_spec(_PACKAGES.get(vendor, "botocore")) is not None
    except ModuleNotFoundError:
        return False


_CALLS = frozenset({"responses", "embeddings", "moderations"})


def schema_errors(vendor: str, incoming: IncomingRequest, body: object) -> list[str]:
    """Return the errors of the vendor's schema in the body as `PLACE: reason`, or nothing."""
    if vendor == "bedrock":
        model = unquote(incoming.path.split("/")[-2])
        return _bedrock_errors({**as_map(body), "modelId": model})
    if vendor in ("gemini", "vertex"):
        return [] if incoming.path.endswith(":batchEmbedContents") else _gemini_errors(body)
    call = incoming.path.rpartition("/")[2]
    name = call if call in _CALLS else vendor
    known = _without_exceptions(vendor, incoming, as_map(body))
    return _validation_errors(lambda data: _typed_dicts(name).validate_json(data), known)


def _without_exceptions(vendor: str, incoming: IncomingRequest, body: Mapping[str, object]) -> Mapping[str, object]:
    """Return the body without the parts that its vendor accepts although its types do not.

    Anthropic's types describe the newest API version, and sampling parameters belong to the classic one. OpenAI's types
    require whole numbers as biases, and the API accepts `-5.0` as one. The same simulator stands for servers of one's
    own, which read the reasoning of earlier answers.
    """
    if vendor == "anthropic" and incoming.headers.get("anthropic-version") == "2023-06-01":
        return {name: value for name, value in body.items() if name not in ("temperature", "top_p", "top_k")}
    if isinstance(messages := body.get("messages"), list):
        kept = [{key: one for key, one in as_map(each).items() if key != "reasoning_content"} for each in messages]
        body = {**body, "messages": kept}
    if "logit_bias" in body:
        biases = as_map(body["logit_bias"]).items()
        return {**body, "logit_bias": {name: int(b) if isinstance(b, float) else b for name, b in biases}}
    return body


def _validation_errors(validate: Callable[[bytes], object], body: object) -> list[str]:
    try:
        with warnings.catch_warnings():
            # The types of google-genai warn about a word that an enumeration lacks.
            warnings.simplefilter("error", UserWarning)
            validate(dumps(body))
    except ValidationError as error:
        found = [f"{_place(one['loc'], body, one['type'])}: {one['msg']}" for one in error.errors(include_url=False)]
        return list(dict.fromkeys(found))
    except (UserWarning, AttributeError) as error:  # the second for a value that is not a string
        return [f"request: {error}"]
    return []


def _place(steps: Sequence[int | str], body: object, kind: str) -> str:
    """Return the place in the body, such as `messages[0].x`, without the type names that pydantic adds."""
    place, value = "", body
    for number, step in enumerate(steps):
        is_missing = kind == "missing" and number == len(steps) - 1
        if isinstance(value, dict) and (step in value or is_missing):
            place += f".{step}"
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            place += f"[{step}]"
            value = value[step]
    return place.removeprefix(".") or "request"


# --- OpenAI and Anthropic: TypedDicts -------------------------------------------------------------


@cache
def _typed_dicts(name: str) -> SchemaValidator:
    params: Any
    if name == "responses":
        from openai.types.responses.response_create_params import ResponseCreateParams as params
    elif name == "embeddings":
        from openai.types.embedding_create_params import EmbeddingCreateParams as params
    elif name == "moderations":
        from openai.types.moderation_create_params import ModerationCreateParams as params
    elif name == "anthropic":
        from anthropic.types.message_create_params import MessageCreateParams as params  # type: ignore[no-redef]
    else:
        from openai.types.chat.completion_create_params import CompletionCreateParams as params
    if name in _CALLS - {"responses"}:
        # A single TypedDict takes no config from outside.
        params.__pydantic_config__ = _STRICT
        return SchemaValidator(_of_json(TypeAdapter(params).core_schema))
    return SchemaValidator(_of_json(TypeAdapter(params, config=_STRICT).core_schema))


def _of_json(schema: Any) -> Any:
    """Return the schema for JSON input.

    Iterables become arrays, because pydantic does not check the entries of an iterable. The client's own objects, which
    allow unknown fields, are accepted as objects only.
    """
    if isinstance(schema, dict):
        match schema.get("type"):
            case "generator":
                schema = {**schema, "type": "list"}
            case "model":
                reference = {"ref": schema["ref"]} if "ref" in schema else {}
                return {"type": "is-instance", "cls": schema["cls"], **reference}
        return {name: _of_json(member) for name, member in schema.items()}
    if isinstance(schema, list | tuple):
        return type(schema)(_of_json(member) for member in schema)
    return schema


# --- Gemini: pydantic models ----------------------------------------------------------------------


@cache
def _gemini_model() -> type[BaseModel]:
    """Return a model of the request as google-genai's converters write it, built from the client's own types."""
    from google.genai import types

    class GenerateContentRequest(BaseModel):
        model_config = ConfigDict(extra="forbid", alias_generator=to_camel, protected_namespaces=())
        contents: list[types.Content]
        system_instruction: types.Content | None = None
        tools: list[types.Tool] | None = None
        tool_config: types.ToolConfig | None = None
        safety_settings: list[types.SafetySetting] | None = None
        generation_config: types.GenerationConfig | None = None
        cached_content: str | None = None
        labels: dict[str, str] | None = None
        service_tier: str | None = None
        store: bool | None = None
        continuation_token: str | None = None

    GenerateContentRequest.model_rebuild(_types_namespace={"types": types})
    return GenerateContentRequest


def as_gemini_reads(value: object) -> object:
    """Return the body with `mimeType` for `mime_type` in the objects in which Google's own client writes the latter."""
    if isinstance(value, list):
        return [as_gemini_reads(entry) for entry in value]
    changed = {name: as_gemini_reads(member) for name, member in as_map(value).items()}
    for name, member in changed.items():
        if name in ("inlineData", "thinkingConfig"):
            changed[name] = {to_camel(inner): one for inner, one in as_map(member).items()}
        elif name == "functionDeclarations" and isinstance(member, list):
            changed[name] = [{to_camel(inner): one for inner, one in as_map(tool).items()} for tool in member]
    return changed if isinstance(value, dict) else value


def _gemini_errors(body: object) -> list[str]:
    body, model = as_gemini_reads(body), _gemini_model()
    return _validation_errors(
        lambda data: model.model_validate_json(data, strict=True, by_alias=True, by_name=False), body
    )


# --- Bedrock: botocore's shapes -------------------------------------------------------------------


@cache
def _converse() -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    service = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))
    return service.operation_model("Converse").input_shape


def _bedrock_errors(params: Mapping[str, object]) -> list[str]:
    from botocore.validate import ParamValidator

    report = ParamValidator().validate(params, _converse())
    found = report.generate_report().splitlines() if report.has_errors() else []
    return [*found, *_constraint_errors(params, _converse(), "request")]


def _constraint_errors(value: object, shape: Any, place: str) -> Iterator[str]:
    """Yield the enumerations and patterns that a value breaks. botocore knows them, but leaves the check to the
    service.
    """
    if shape.type_name == "structure" and not shape.is_document_type:
        for name, member in as_map(value).items():
            if name in shape.members:
                yield from _constraint_errors(member, shape.members[name], f"{place}.{name}")
    elif shape.type_name == "list" and isinstance(value, list):
        for position, entry in enumerate(value):
            yield from _constraint_errors(entry, shape.member, f"{place}[{position}]")
    elif shape.type_name == "string" and isinstance(value, str):
        if shape.enum and value not in shape.enum:
            yield f"{place}: {value!r} is not one of {', '.join(shape.enum)}"
        pattern, most = shape.metadata.get("pattern"), shape.metadata.get("max")
        if pattern and not re.fullmatch(pattern, value):
            yield f"{place}: {value!r} does not match {pattern}"
        if most is not None and len(value) > most:
            yield f"{place}: longer than {most} characters"
