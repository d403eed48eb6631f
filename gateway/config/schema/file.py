"""Shape of the configuration file and of its small sections, and its JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast, get_args

from pydantic import BaseModel, BeforeValidator, Field, create_model
from pydantic.json_schema import GenerateJsonSchema

from gateway.config import field_types as types
from gateway.config.schema.location import (
    CellSection,
    LabelSection,
    LocationSection,
    Reason,
    RegionSection,
    Texts,
    labels_of,
)
from gateway.config.schema.routing import AssistantSection, DeploymentSection
from gateway.config.schema.sign_in import SignInSection
from gateway.config.schema.usage import (
    Budgets,
    MaxRequestSection,
    OneOrMoreBudgets,
    ProjectSection,
    QuotaSection,
    StoresSection,
    UsageSection,
)
from gateway.model.budget import ClientsSource, KeyRules
from gateway.model.client_token import TokenIssuerRules
from gateway.model.config_version import ClientLimitRule, LogRules, ReceiptRules
from gateway.model.quota import Priority
from gateway.model.resilience import Resilience
from gateway.model.section import Listed, OrOff, Sensitive, default_as_written, word_of
from gateway.model.units import Instant
from gateway.model.websocket import WebSocketRules

_SectionT = TypeVar("_SectionT", bound=types.Section)
_GatewayKey = Annotated[types.OneOrTwo | None, Sensitive("`secrets`")]


class ClientKeySection(types.Section):
    """A key of a client."""

    hash: types.KeyHash = Field(description="The SHA-256 hash of the key (sha256:…).")
    expires: Instant | None = Field(None, description="When it stops to work. Default: never.")


def _client_key(value: object) -> object:
    return value if isinstance(value, dict | ClientKeySection) else {"hash": types.key_hash(value)}


ClientKey = Annotated[
    ClientKeySection, BeforeValidator(_client_key, json_schema_input_type=types.KeyHash | ClientKeySection)
]


class ClientSection(types.Section):
    """A client that may call the gateway."""

    keys: Annotated[Annotated[list[ClientKey], Field(min_length=1)] | None, Sensitive(is_secret=False)] = Field(
        None,
        description="The SHA-256 hash of each of its keys (sha256:…), or a mapping with the `hash` and when it "
        "`expires`. `gateway key new` creates a key and its hash. "
        "Optional for a client that a rule of `token_issuers` names.",
    )
    assistants: types.Words | None = Field(None, description="The assistants that it may use. Default: all.")
    region: str | None = Field(None, description="Every request with one of its keys belongs to this region.")
    may_assert: list[Literal["territory", "user", "consent", "intent"]] = Field(
        [], description="The facts that this client, a trusted backend, may state about its user."
    )
    limits: ClientLimitRule | None = Field(None, description="Limits of its requests. Default: no limit.")
    project: types.Name | None = Field(None, description="The project whose budgets it shares. Default: none.")
    budgets: Budgets | None = Field(None, description="Its own budgets. Default: none.")
    user_budget: OneOrMoreBudgets | None = Field(
        None, description="A budget, or a list of them, of each of its end users. Requests must then name their user."
    )
    max_request: MaxRequestSection | None = Field(
        None, description="The most that one request may cost. Default: no limit."
    )
    show_cost: bool = Field(False, description="true: its answers state what they cost.")
    priority: Annotated[Priority, word_of(Priority, "a priority")] = Field(
        Priority.NORMAL, description="Its place where a quota or a queue is full: low, normal or high."
    )


class CorsSection(types.Section):
    """The web pages that may call from a browser."""

    origins: Annotated[list[types.Origin], Field(min_length=1)] = Field(
        description='Their origins, such as https://app.example, or "*" for every web page.'
    )
    headers: Annotated[list[types.HeaderName], Field(max_length=50)] = Field(
        [], description="Headers that these pages may send as well as those of the SDKs, such as x-tenant."
    )


class CatalogueSection(types.Section):
    """Your own facts about models. They take precedence over the built-in catalogue."""

    models: types.OneOrMore = Field(
        description="A YAML file with facts about models, or a list of such files, as "
        "docs/operate/models-and-prices.md describes them. Paths are relative to this file."
    )


class ExporterSection(types.Section):
    """A collector that receives traces as OTLP (protobuf over HTTP)."""

    endpoint: str = Field(description="Its URL for traces, such as https://otel.example.de/v1/traces.")
    headers: Annotated[dict[types.HeaderName, str], Sensitive("`headers`")] = Field(
        {}, description="Headers to send. Each value is a text, or one whole ${NAME} or ${file:/path}.", repr=False
    )
    stores: types.OneOrMore = Field(
        description="The territories where traces are stored, including every system that it forwards to; `any` if "
        "unknown."
    )
    processes: types.OneOrMore = Field(description="The territories where traces are processed; `any` if unknown.")
    regions: types.Words | None = Field(
        None, description="The regions whose requests it receives. Default: all regions."
    )
    sampling: float = Field(
        1.0,
        ge=0,
        le=1,
        description="The share of new traces that it receives. The sampling flag of a caller's trace takes precedence.",
    )
    insecure: bool = Field(
        False, description="true allows http:// to another machine: traces and headers are sent in clear text."
    )


class SecretsSection(types.Section):
    """The gateway's own keys: ${NAME} or ${file:/path}, at least 32 characters each.

    A key may have two valid versions, the newer one first.
    """

    file: str | None = Field(
        None,
        min_length=1,
        description="A file with all of them, which `gateway secrets new` writes. The section then has no other key. "
        "The path is relative to this file.",
    )
    consent: _GatewayKey = Field(
        None,
        description="Signs consent tokens. Gateways with the same secret accept each other's tokens. Without it, a "
        "token is valid only until the process that issued it ends.",
        repr=False,
    )
    identity: _GatewayKey = Field(
        None,
        description="The key of the pseudonyms of `identity: hash`. Another secret gives other pseudonyms.",
        repr=False,
    )
    pepper: _GatewayKey = Field(
        None, description="The key of the stored hashes of API keys. Required with `stores.database`.", repr=False
    )


class GatewaySection(types.Section):
    """The whole configuration file."""

    version: types.FormatVersion = Field(description="The version of this format: 1.")
    demo: bool = Field(
        False,
        description="true: only simulated providers, every peer is a trusted edge, any key or none is accepted, and "
        "only this machine is served.",
    )
    cell: CellSection | None = Field(None, description="Where this installation runs and which regions it serves.")
    assistants: dict[types.Visible, AssistantSection] = Field(description="The names that clients send in `model`.")
    regions: dict[types.Name, RegionSection] = Field(description="Groups of territories under one policy, by name.")
    blocked: list[str] = Field([], description="Territories whose requests are refused.")
    blocked_by: types.DocumentUrl | None = Field(
        None,
        description="A page of yours that explains who refuses requests and why. The `Link` header of each 451 names "
        "it.",
    )
    messages: dict[Reason, Texts] = Field(
        {},
        description="Sentences for end users whose request is not answered, by reason and language, in place of the "
        "built-in ones.",
    )
    deployments: dict[types.Name, DeploymentSection] = Field(description="Models at their sites, by name.")
    sign_ins: dict[types.Name, SignInSection] = Field(
        {}, description="How the gateway gets tokens of clouds and OAuth servers as a workload, without keys, by name."
    )
    clients: dict[types.Name, ClientSection] = Field(
        {}, description="The clients that may call, by name. Without clients, the gateway serves this machine only."
    )
    token_issuers: dict[types.Name, TokenIssuerRules] = Field(
        {}, description="The issuers of signed tokens that clients send in place of API keys, by name."
    )
    clients_source: ClientsSource = Field(
        "file",
        description="Where clients, keys, projects and budgets are. With `database`, this file has no `clients` and no "
        "`projects`.",
    )
    projects: dict[types.Name, ProjectSection] = Field({}, description="Groups of clients that share budgets, by name.")
    usage: UsageSection | None = Field(None, description="How usage and money are counted.")
    quotas: dict[types.Name, QuotaSection] = Field(
        {}, description="The limits of accounts at vendors, by name. Deployments name them in `quota`."
    )
    stores: StoresSection | None = Field(
        None,
        description="The servers that all instances of the cell share. Without them, state is in the state directory.",
    )
    keys: KeyRules = Field(KeyRules(), description="The API keys of clients.")
    catalogue: CatalogueSection | None = Field(None, description="Your own facts about models.")
    exporters: dict[types.Name, ExporterSection] = Field({}, description="Collectors that receive traces, by name.")
    # An unknown key there is reported as such, also if its value is a reference.
    secrets: Annotated[SecretsSection, Sensitive("`secrets`", is_secret=False, is_shown=True)] = Field(
        SecretsSection(), description="The gateway's own keys."
    )
    cors: CorsSection | None = Field(None, description="The web pages that may call from a browser. Default: none.")
    location: LocationSection = Field(LocationSection(), description="How the location of a caller is decided.")
    resilience: Resilience = Field(Resilience(), description="Attempts and timeouts of one request.")
    websocket: Annotated[WebSocketRules | None, OrOff(off=False, example="{idle: 30m}")] = Field(
        WebSocketRules(), description="The Responses API over WebSocket; `false` to offer none."
    )
    admin_keys: Annotated[tuple[types.AdminKey, ...], Listed()] = Field(
        (), description="The public keys that may sign a change of a protected region."
    )
    receipts: ReceiptRules = Field(ReceiptRules(), description="The receipts of requests.")
    log: LogRules = Field(LogRules(), description="The log lines of requests.")


class FeatureKey(NamedTuple):
    """A key that a feature adds to the file."""

    section: str
    """The section whose entries have it (`regions`, or `regions.labels` for the labels of regions), or an empty text
    for a key of the file itself."""
    name: str
    type: Any
    field: Any
    """Its default and its meaning."""

    @property
    def path(self) -> str:
        """The key with `*` for a name."""
        return ".*.".join((*self.section.split("."), self.name)) if self.section else self.name


def file_section(keys: Sequence[FeatureKey]) -> type[GatewaySection]:
    """Return the whole configuration file with the keys of features."""
    changed: dict[str, Any] = {key.name: (key.type, key.field) for key in keys if not key.section}
    of_labels = {key.name: (key.type, key.field) for key in keys if key.section == "regions.labels"}
    for section in dict.fromkeys(key.section for key in keys if key.section and "." not in key.section):
        field = GatewaySection.model_fields[section]
        named, entry = get_args(field.annotation)
        own = {key.name: (key.type, key.field) for key in keys if key.section == section}
        if section == "regions" and of_labels:
            about = RegionSection.model_fields["labels"].description
            own["labels"] = labels_of(_extended(LabelSection, of_labels)), Field([], description=about)
        extended: Any = _extended(entry, own)
        changed[section] = dict.__class_getitem__((named, extended)), field
    return _extended(GatewaySection, changed)


def _extended(section: type[_SectionT], keys: Mapping[str, Any]) -> type[_SectionT]:
    """Return a section with further keys, under its own name."""
    about: Any = {"__base__": section, "__doc__": section.__doc__, "__module__": section.__module__}
    return cast("type[_SectionT]", create_model(section.__name__, **about, **keys))


class _SchemaWriter(GenerateJsonSchema):
    """Write a default in the form of the file, not in the form that the gateway works with."""

    def encode_default(self, dft: Any) -> Any:
        return super().encode_default(default_as_written(dft))


def schema_of(section: type[BaseModel], title: str) -> str:
    """Return the JSON Schema of a file that consists of this section."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    body = _tidy(section.model_json_schema(mode="validation", schema_generator=_SchemaWriter))
    return json.dumps(head | body, indent=2, ensure_ascii=False)


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove generated titles and nulls, because a key is either written or left out.

    The pattern of a mapping's names becomes `propertyNames`: pydantic's `patternProperties` would accept other names.
    """
    tidy = {key: _tidy_value(key, value) for key, value in schema.items() if key != "title"}
    if "patternProperties" in tidy:
        ((pattern, values),) = tidy.pop("patternProperties").items()
        tidy |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}
    if "default" in tidy and tidy["default"] is None:
        del tidy["default"]
    choices = [choice for choice in tidy.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del tidy["anyOf"]
        tidy |= choices[0]
        return tidy
    return tidy | ({"anyOf": choices} if choices else {})


def _tidy_value(key: str, value: Any) -> Any:
    if key in ("properties", "$defs", "patternProperties"):
        return {name: _tidy(part) for name, part in value.items()}
    if isinstance(value, dict) and key != "default":
        return _tidy(value)
    return [_tidy(part) for part in value] if key == "anyOf" else value
