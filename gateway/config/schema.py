"""What a person writes: the shape of a config file, a description for every field, and its JSON Schema.

Only shapes are judged here. What a word refers to, and whether it may stand where it stands, is the compiler's.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from gateway.config.scalars import (
    Age,
    Day,
    DocumentUrl,
    Duration,
    DurationOrZero,
    FieldName,
    HeaderName,
    KeyHash,
    Line,
    Name,
    OneOrMore,
    Origin,
    ProjectName,
    Share,
    ShareOrOff,
    Visible,
    Words,
)
from gateway.model.approval import ApprovalKind
from gateway.model.table import Signal

__all__ = [
    "ApprovalSection",
    "AssistantSection",
    "AttemptsSection",
    "BreakerSection",
    "CellSection",
    "ClaimSection",
    "ClientSection",
    "CorsSection",
    "DeploymentSection",
    "EdgeSecretSection",
    "EdgeSection",
    "ExporterSection",
    "GatewaySection",
    "GeoIpSection",
    "LimitsSection",
    "LocationSection",
    "RegionSection",
    "ResilienceSection",
    "schema_json",
]


# fmt: off
_Algorithm = Literal[
    "ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512", "HS256", "HS384", "HS512",
]
# fmt: on


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class CellSection(_Section):
    """This installation of the gateway."""

    territory: str = Field(description="Where the gateway itself runs: an ISO 3166 code such as DE.")
    serves: Words | None = Field(None, description="The regions that it serves; all of them if left out.")
    homes: dict[Name, str] = Field(
        {}, description="For a region that it doesn't serve: the https URL of the cell that does."
    )


class AssistantSection(_Section):
    """What a client asks for in `model`."""

    aliases: list[Visible] = Field(
        [], description="Other names for it, such as gpt-4o, so that an app has only its base URL to change."
    )
    routes: dict[Name, list[str]] = Field(
        description="For each region the deployments to ask, in order: the first, then its fallbacks."
    )


class RegionSection(_Section):
    """Territories under one policy."""

    territories: Words = Field(
        description='Whose people it answers: ISO 3166 codes, groups such as "@EEA", or "*" for everywhere else.'
    )
    boundary: Words = Field(
        description='Where their prompts may be stored and processed: codes, groups, "*", exclusions such as "!CN".'
    )
    transit: Words | None = Field(
        None, description="The cell's own territory, where it lies outside the boundary and is accepted."
    )
    approvals: Literal["none", "required"] = Field(
        "none", description="required: only a deployment with an approval for this region that is valid now may answer."
    )


class ApprovalSection(_Section):
    """A record that an authority lets the deployment serve a region."""

    region: str = Field(description="The region that it is for.")
    authority: Line = Field(description="Who gave it, such as CAC (the Cyberspace Administration of China).")
    kind: ApprovalKind = Field(description="What it is: the filing of an algorithm or a model, or a registration.")
    number: Line = Field(description="Its number, as the authority writes it.")
    model_name: Line = Field(description="The name by which the model is public, which apps must show.")
    valid_from: Day | None = Field(None, description="Its first day, such as 2026-03-01; no beginning if left out.")
    valid_until: Day | None = Field(None, description="Its last day, such as 2027-03-01; no end if left out.")
    document: DocumentUrl | None = Field(None, description="An https URL where it can be read.")


class DeploymentSection(_Section):
    """One model of one provider at one site, with its credentials."""

    provider: str = Field(description="The adapter that speaks its wire format, such as `openai-compatible`.")
    model: Visible = Field(description="The model, in the provider's own words.")
    endpoint: str | None = Field(
        None,
        description="A site that the provider is known to have, or a URL; may be left out where there is one site. "
        "`simulator` in demo mode.",
    )
    project: ProjectName | None = Field(
        None, description="The cloud project that pays and is a part of the path, where the site's provider wants one."
    )
    simulates: str | None = Field(None, description="With `endpoint: simulator`: the site whose facts it takes.")
    stores: OneOrMore | None = Field(None, description="With a URL: where content is kept; `any` if unknown.")
    processes: OneOrMore | None = Field(None, description="With a URL: where it is computed on; `any` if unknown.")
    available: OneOrMore | None = Field(
        None, description="The territories whose people it may answer, where the vendor publishes no list."
    )
    api_key: OneOrMore | None = Field(
        None,
        description="${NAME} of an environment variable, ${file:/path} of a file, or a list used in turn.",
        repr=False,
    )
    attests: list[str] = Field(
        [], description="What the site's promise requires and your contract has, such as zdr (zero data retention)."
    )
    capabilities: list[str] | None = Field(
        None, description="What the model can do, instead of what is known of it: tools, vision, json_schema, …"
    )
    unsupported: Literal["drop", "refuse"] = Field(
        "drop", description="A parameter that it can't express is dropped and named in a header, or refused."
    )
    passthrough: list[FieldName] = Field([], description="Unknown request fields that are let through to it.")
    approvals: list[ApprovalSection] = Field([], description="What authorities let it do, in which regions.")
    enabled: bool = Field(True, description="false takes it out of every route at once.")
    insecure: bool = Field(False, description="Allows http:// to another machine: prompts and keys in clear text.")


class LimitsSection(_Section):
    """How much a client may ask, of all workers together."""

    rpm: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Chat requests a minute: they come back evenly, and up to a minute's worth is saved up.",
    )
    concurrent: int | None = Field(
        None, ge=1, le=1_000_000, description="Chat requests that run at the same time, open streams among them."
    )


class ClientSection(_Section):
    """Who may call."""

    keys: Annotated[list[KeyHash], Field(min_length=1)] = Field(
        description="The SHA-256 of each of its keys (sha256:…); `gateway key new` makes one."
    )
    assistants: Words | None = Field(None, description="Whom it may ask; every assistant if left out.")
    region: str | None = Field(None, description="Binds every request of its keys to this region.")
    may_assert: list[Literal["territory", "user"]] = Field(
        [], description="What a trusted backend may say about the person it calls for."
    )
    limits: LimitsSection | None = Field(None, description="How much it may ask; no limit if left out.")


class CorsSection(_Section):
    """Which web pages may call from a browser."""

    origins: Annotated[list[Origin], Field(min_length=1)] = Field(
        description='Their origins, such as https://app.example, or "*" for every page on the web.'
    )


class EdgeSecretSection(_Section):
    """What shows that a request came through the edge."""

    header: HeaderName = Field(description="The header that the edge adds.")
    value: str = Field(description="Its value: ${NAME} or ${file:/path}.", repr=False)


class EdgeSection(_Section):
    """A trusted peer that says in a header from which country a request comes."""

    networks: Words = Field(alias="from", description="The peer's networks (CIDR); nobody else's header is read.")
    country: HeaderName = Field(description="The header with the country, such as CF-IPCountry.")
    subdivision: HeaderName | None = Field(
        None,
        description="The header with the part of the country (ISO 3166-2), such as CloudFront-Viewer-Country-Region.",
    )
    client_ip: HeaderName | None = Field(
        None,
        description="The header with the person's address, for `geoip`: CF-Connecting-IP, CloudFront-Viewer-Address, "
        "X-Forwarded-For, Forwarded, …",
    )
    secret: EdgeSecretSection | None = Field(None, description="What the edge adds to show that it was the edge.")


class ClaimSection(_Section):
    """A signed claim about the person (a JWT in `x-gateway-claim`), and whose are believed."""

    issuer: Visible = Field(description="What must stand in `iss`.")
    audience: Visible = Field(description="What must stand in `aud`: this gateway's name at the issuer.")
    algorithms: Annotated[list[_Algorithm], Field(min_length=1)] = Field(
        description="How it may be signed, such as [ES256]; the token doesn't choose. HS… with `secret` only."
    )
    jwks: str | None = Field(
        None, description="The issuer's public keys: an https URL of a JWK set, or the whole path of a file."
    )
    secret: str | None = Field(
        None, description="Instead of public keys, a shared secret: ${NAME} or ${file:/path}.", repr=False
    )
    territory: Visible = Field("territory", description="The member of the token that has the person's territory.")


class GeoIpSection(_Section):
    """A database of addresses, a MaxMind DB file (.mmdb)."""

    path: str = Field(description="The whole path of the file; it is opened again when it is replaced.")
    max_age: Age = Field("30d", description="From this age on, by the file's own date, it isn't asked any more.")


class LocationSection(_Section):
    """How a caller's place is decided."""

    signals: Annotated[list[Signal], Field(min_length=1)] = Field(
        ["claim", "api_key", "assertion", "edge_header", "geoip"],
        description="What may tell the place; the first names the winner where several agree.",
    )
    edges: list[EdgeSection] = Field([], description="The peers whose country header is believed.")
    claim: ClaimSection | None = Field(None, description="Signed claims: whose are believed, and by which keys.")
    geoip: GeoIpSection | None = Field(None, description="The database that tells an address's country.")
    conflict: Literal["strictest", "refuse"] = Field(
        "strictest",
        description="Where signals give different regions: the one whose boundary lies within the others', or none.",
    )
    accept_country_only: list[str] = Field(
        [],
        description="Countries of which a part is blocked or has a region of its own, and that are believed where a "
        "signal doesn't tell the part. Without it they are refused.",
    )
    unknown: str = Field("refuse", description="Where no signal gives a region: refuse, or the region to take.")


class AttemptsSection(_Section):
    """How often a request may be tried."""

    per_deployment: int = Field(2, ge=1, le=10, description="Attempts on one deployment.")
    total: int = Field(4, ge=1, le=50, description="Attempts of one request over all deployments.")


class BreakerSection(_Section):
    """When a deployment that keeps failing is left alone for a while."""

    failures: int = Field(5, ge=1, le=1000, description="Failures in a row that open it.")
    rate: Share = Field("50%", description="The share of failed calls in the window that opens it.")
    window: Duration = Field("30s", description="How far back calls count for the rate.")
    samples: int = Field(20, ge=1, le=100_000, description="The calls that the window must have for a rate.")
    open: Duration = Field(
        "10s", description="For how long it is open at first; twice as long each time a probe fails, up to 16 times."
    )


def _off_is_none(value: object) -> object:
    """`off`, as no section at all."""
    if value == "off":
        return None
    if isinstance(value, dict | BreakerSection):
        return value
    message = {"message": "must be a mapping of its keys, or the word off", "hint": "write `off`, or {failures: 5}"}
    raise PydanticCustomError("config", "{message}", message)


_BreakerOrOff = Annotated[
    BreakerSection | None, BeforeValidator(_off_is_none, json_schema_input_type=BreakerSection | Literal["off"])
]


class ResilienceSection(_Section):
    """Bounds of one request's journey."""

    attempts: AttemptsSection = Field(AttemptsSection(), description="How often a request may be tried.")
    connect: Duration = Field("5s", description="To open a connection.")
    first_token: Duration = Field("10s", description="To the first real event of an attempt, where a next step exists.")
    commit: Duration = Field("55s", description="To the first real event, over all attempts.")
    idle: Duration = Field("30s", description="Between two events of a stream.")
    total: Duration = Field("600s", description="The whole request.")
    failover_after: DurationOrZero = Field(
        "2s", description="The longest wait that a provider may ask for before the next step is taken instead."
    )
    keep_alive: DurationOrZero = Field(
        "15s",
        description="The longest silence of a stream that has begun, before the client gets a comment line, so that "
        "nothing between the two closes the connection. 0s sends none.",
    )
    breaker: _BreakerOrOff = Field(
        BreakerSection(), description="When a deployment that keeps failing is left alone for a while; `off` for never."
    )
    retry_budget: ShareOrOff = Field(
        "20%",
        description="The share of recent requests that may be retried on the deployment that failed, and ten in ten "
        "seconds besides; `off` for no limit. Going to the next step is always allowed.",
    )


class ExporterSection(_Section):
    """A collector of traces, which is sent OTLP (protobuf over HTTP)."""

    endpoint: str = Field(description="Its URL for traces, such as https://otel.example.de/v1/traces.")
    headers: dict[HeaderName, str] = Field(
        {}, description="What it wants to see: a value each, or ${NAME} or ${file:/path} for all of one.", repr=False
    )
    stores: OneOrMore = Field(description="Where what it is told is kept, wherever it passes on to; `any` if unknown.")
    processes: OneOrMore = Field(description="Where it is read and computed on; `any` if unknown.")
    regions: Words | None = Field(None, description="Whose requests it is told of; those of all regions if left out.")
    sampling: float = Field(
        1.0, ge=0, le=1, description="The share of traces that it gets; where a caller's trace has a flag, that counts."
    )
    insecure: bool = Field(False, description="Allows http:// to another machine: traces and headers in clear text.")


class GatewaySection(_Section):
    """The whole file."""

    version: Literal[1] = Field(description="The version of this format: 1.")
    demo: bool = Field(False, description="Simulated providers only; any peer is an edge, any key or none will do.")
    cell: CellSection | None = Field(None, description="Where this installation stands and which regions it serves.")
    assistants: dict[Visible, AssistantSection] = Field(description="What clients ask for, by name.")
    regions: dict[Name, RegionSection] = Field(description="Territories under one policy, by name.")
    blocked: list[str] = Field([], description="Territories that nobody answers.")
    deployments: dict[Name, DeploymentSection] = Field(description="Models at their sites, by name.")
    clients: dict[Name, ClientSection] = Field(
        {}, description="Who may call, by name. Without any, the gateway serves this machine only."
    )
    exporters: dict[Name, ExporterSection] = Field({}, description="Where traces of requests are sent, by name.")
    cors: CorsSection | None = Field(None, description="Which web pages may call from a browser; none if left out.")
    location: LocationSection = Field(LocationSection(), description="How a caller's place is decided.")
    resilience: ResilienceSection = Field(ResilienceSection(), description="Attempts and times of one request.")


def schema_json() -> str:
    """The JSON Schema (draft 2020-12) of a config file, for editors."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "gateway.yaml"}
    body = _tidy(GatewaySection.model_json_schema(mode="validation"))
    return json.dumps(head | body, indent=2, ensure_ascii=False)


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """Without generated titles and nulls (a key is written or left out), and with the pattern of a mapping's names
    binding: pydantic's lets other names pass."""
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
