"""Shape of the configuration file and of its small sections, and its JSON Schema."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import GenerateJsonSchema

from gateway.config.field_types import (
    AdminKey,
    DocumentUrl,
    FormatVersion,
    HeaderName,
    KeyHash,
    Name,
    OneOrMore,
    Origin,
    Section,
    Visible,
    Words,
)
from gateway.config.schema.location import CellSection, LocationSection, RegionSection
from gateway.config.schema.routing import AssistantSection, DeploymentSection
from gateway.model.config_version import ClientLimitRule, ReceiptRules, Resilience
from gateway.model.section import default_as_written


class ClientSection(Section):
    """Who may call."""

    keys: Annotated[list[KeyHash], Field(min_length=1)] = Field(
        description="The SHA-256 of each of its keys (sha256:…); `gateway key new` makes one."
    )
    assistants: Words | None = Field(None, description="Whom it may ask; every assistant if left out.")
    region: str | None = Field(None, description="Binds every request of its keys to this region.")
    may_assert: list[Literal["territory", "user", "consent"]] = Field(
        [], description="What a trusted backend may say about the person it calls for."
    )
    limits: ClientLimitRule | None = Field(None, description="How much it may ask; no limit if left out.")


class CorsSection(Section):
    """Which web pages may call from a browser."""

    origins: Annotated[list[Origin], Field(min_length=1)] = Field(
        description='Their origins, such as https://app.example, or "*" for every page on the web.'
    )


class CatalogueSection(Section):
    """Facts of your own, which win over those that the gateway comes with."""

    models: OneOrMore = Field(
        description="A file of models, or a list of them: YAML, in the form that catalogue.md describes. Paths are "
        "relative to this file."
    )


class ExporterSection(Section):
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


class SecretsSection(Section):
    """The gateway's own keys: ${NAME} or ${file:/path}, at least 32 characters each."""

    consent: str | None = Field(
        None,
        description="Signs consent tokens. Gateways with the same one take each other's; without one, a token ends "
        "with the process that gave it.",
        repr=False,
    )
    identity: str | None = Field(
        None, description="Makes the pseudonyms of `identity: hash`; another one makes others.", repr=False
    )


class GatewaySection(Section):
    """The whole file."""

    version: FormatVersion = Field(description="The version of this format: 1.")
    demo: bool = Field(False, description="Simulated providers only; any peer is an edge, any key or none will do.")
    cell: CellSection | None = Field(None, description="Where this installation stands and which regions it serves.")
    assistants: dict[Visible, AssistantSection] = Field(description="What clients ask for, by name.")
    regions: dict[Name, RegionSection] = Field(description="Territories under one policy, by name.")
    blocked: list[str] = Field([], description="Territories that nobody answers.")
    blocked_by: DocumentUrl | None = Field(
        None, description="A page of yours that says who refuses and why: named in the `Link` header of each 451."
    )
    deployments: dict[Name, DeploymentSection] = Field(description="Models at their sites, by name.")
    clients: dict[Name, ClientSection] = Field(
        {}, description="Who may call, by name. Without any, the gateway serves this machine only."
    )
    catalogue: CatalogueSection | None = Field(None, description="Facts of your own about models.")
    exporters: dict[Name, ExporterSection] = Field({}, description="Where traces of requests are sent, by name.")
    secrets: SecretsSection = Field(SecretsSection(), description="The gateway's own keys.")
    cors: CorsSection | None = Field(None, description="Which web pages may call from a browser; none if left out.")
    location: LocationSection = Field(LocationSection(), description="How a caller's place is decided.")
    resilience: Resilience = Field(Resilience(), description="Attempts and times of one request.")
    admin_keys: list[AdminKey] = Field(
        [], description="Public keys of those who may sign a change of a protected region."
    )
    receipts: ReceiptRules = Field(ReceiptRules(), description="The receipts of requests.")


class _SchemaWriter(GenerateJsonSchema):
    """Writes a default as the file would have it, not as the gateway works with it."""

    def encode_default(self, dft: Any) -> Any:
        return super().encode_default(default_as_written(dft))


def schema_json() -> str:
    """The JSON Schema (draft 2020-12) of a config file, for editors."""
    return schema_of(GatewaySection, "gateway.yaml")


def schema_of(section: type[BaseModel], title: str) -> str:
    """The JSON Schema of a file with this section as its whole."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    body = _tidy(section.model_json_schema(mode="validation", schema_generator=_SchemaWriter))
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
