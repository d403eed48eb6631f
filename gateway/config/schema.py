"""What a person writes: the shape of a config file, a description for every field, and its JSON Schema.

Only shapes are judged here. What a word refers to, and whether it may stand where it stands, is the compiler's.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.config.scalars import (
    Duration,
    DurationOrZero,
    FieldName,
    HeaderName,
    KeyHash,
    Name,
    OneOrMore,
    ProjectName,
    Visible,
    Words,
)

__all__ = [
    "AssistantSection",
    "AttemptsSection",
    "CellSection",
    "ClientSection",
    "DeploymentSection",
    "EdgeSecretSection",
    "EdgeSection",
    "ExporterSection",
    "GatewaySection",
    "LocationSection",
    "RegionSection",
    "ResilienceSection",
    "schema_json",
]


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
    enabled: bool = Field(True, description="false takes it out of every route at once.")
    insecure: bool = Field(False, description="Allows http:// to another machine: prompts and keys in clear text.")


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


class EdgeSecretSection(_Section):
    """What shows that a request came through the edge."""

    header: HeaderName = Field(description="The header that the edge adds.")
    value: str = Field(description="Its value: ${NAME} or ${file:/path}.", repr=False)


class EdgeSection(_Section):
    """A trusted peer that says in a header from which country a request comes."""

    networks: Words = Field(alias="from", description="The peer's networks (CIDR); nobody else's header is read.")
    country: HeaderName = Field(description="The header with the country, such as CF-IPCountry.")
    client_ip: HeaderName | None = Field(None, description="The header with the person's address.")
    secret: EdgeSecretSection | None = Field(None, description="What the edge adds to show that it was the edge.")


class LocationSection(_Section):
    """How a caller's place is decided."""

    signals: Annotated[list[Literal["api_key", "assertion", "edge_header"]], Field(min_length=1)] = Field(
        ["api_key", "assertion", "edge_header"],
        description="What may tell the place; the first names the winner where several agree.",
    )
    edges: list[EdgeSection] = Field([], description="The peers whose country header is believed.")
    conflict: Literal["strictest", "refuse"] = Field(
        "strictest",
        description="Where signals give different regions: the one whose boundary lies within the others', or none.",
    )
    unknown: str = Field("refuse", description="Where no signal gives a region: refuse, or the region to take.")


class AttemptsSection(_Section):
    """How often a request may be tried."""

    per_deployment: int = Field(2, ge=1, le=10, description="Attempts on one deployment.")
    total: int = Field(4, ge=1, le=50, description="Attempts of one request over all deployments.")


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
