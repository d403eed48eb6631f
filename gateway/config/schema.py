"""What a person writes: the shape of a whole config file, a description for every field, and its JSON Schema.

Only shapes are judged here. What a word refers to, and whether it may stand where it stands, is the compiler's.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, Field

from gateway.config.scalars import AdminKey, DocumentUrl, FormatVersion, Name, Visible
from gateway.config.sections.base import Section
from gateway.config.sections.callers import ClientSection, CorsSection
from gateway.config.sections.catalogue import CatalogueSection
from gateway.config.sections.exporters import ExporterSection
from gateway.config.sections.location import LocationSection
from gateway.config.sections.place import CellSection, RegionSection
from gateway.config.sections.resilience import ResilienceSection
from gateway.config.sections.routing import AssistantSection, DeploymentSection
from gateway.config.sections.secrets import SecretsSection
from gateway.config.sections.state import ReceiptsSection

__all__ = ["GatewaySection", "schema_json", "schema_of"]


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
    resilience: ResilienceSection = Field(ResilienceSection(), description="Attempts and times of one request.")
    admin_keys: list[AdminKey] = Field(
        [], description="Public keys of those who may sign a change of a protected region."
    )
    receipts: ReceiptsSection = Field(ReceiptsSection(), description="The receipts of requests.")


def schema_json() -> str:
    """The JSON Schema (draft 2020-12) of a config file, for editors."""
    return schema_of(GatewaySection, "gateway.yaml")


def schema_of(section: type[BaseModel], title: str) -> str:
    """The JSON Schema of a file with this section as its whole."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    body = _tidy(section.model_json_schema(mode="validation"))
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
