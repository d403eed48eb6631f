"""Write every generated file of the repository: `make generate`. It needs no network.

`FILES` is the only place that names the paths. The text comes from functions that the command line uses too, or
from the other modules of this folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from gateway.cli.provider_pages import models_page, providers_page
from gateway.config.locales import tags_of
from gateway.config.operator_catalogue import catalogue_schema_json
from gateway.config.reference import reference_page
from gateway.config.sentences import known_messages
from gateway.features.configuration import schema_json
from gateway.settings import Settings
from gateway.telemetry.metric_definitions import METRIC_DEFINITIONS
from providers.registry import load_registry
from scripts.admin_page import admin_page
from scripts.api_pages import contract_page, testkit_page
from scripts.dependencies import dependencies_page
from scripts.dialect_keys import dialect_page
from scripts.error_page import errors_page
from scripts.fault_page import faults_page
from scripts.laws_page import laws_page
from scripts.licences import licences_page
from scripts.outgoing_calls import calls_page
from scripts.page_tables import ERROR_CODES_PAGE, TABLES, WHERE_TO_ADD, error_codes_page, page_with_table, where_to_add
from scripts.rights_page import rights_page
from scripts.sensitive_keys import sensitive_keys_json
from scripts.translations import README as TRANSLATED_README
from scripts.translations import readme as translated_readme

ROOT = Path(__file__).parents[1]
CONFIG_SCHEMA = ROOT / "config/gateway.schema.json"
CATALOGUE_SCHEMA = ROOT / "config/catalogue.schema.json"
CONFIG_PAGE = ROOT / "docs/reference/config.md"
PROVIDERS_PAGE = ROOT / "docs/reference/providers.md"
ERRORS_PAGE = ROOT / "docs" / "reference" / "provider-errors.md"
MODELS_PAGE = ROOT / "docs/reference/models.md"
FAULTS_PAGE = ROOT / "docs/reference/faults.md"
METRICS_PAGE = ROOT / "docs/reference/metrics.md"
LICENCES_PAGE = ROOT / "docs/reference/licences.md"
DEPENDENCIES_PAGE = ROOT / "docs/reference/dependencies.md"
SETTINGS_PAGE = ROOT / "docs/reference/settings.md"
ADMIN_PAGE = ROOT / "docs/reference/admin-api.md"
RIGHTS_PAGE = ROOT / "docs/reference/rights.md"
DIALECT_PAGE = ROOT / "docs/reference/dialect.md"
CONTRACT_PAGE = ROOT / "docs/reference/api-contract.md"
TESTKIT_PAGE = ROOT / "docs/reference/api-testkit.md"
CALLS_PAGE = ROOT / "docs/reference/outgoing-calls.md"
LAWS_PAGE = ROOT / "docs/prove/laws.md"

SENSITIVE_KEYS = ROOT / "gateway/config/data/sensitive_keys.json"
SENTENCE_TAGS = ROOT / "gateway/config/data/sentence_tags.json"

_METRICS_HEAD = """\
# Metrics

All metrics of the gateway. [Metrics and alerts](../operate/metrics.md) explains how to scrape them, what
[the labels](../operate/metrics.md#labels) contain, and has useful queries and alerts.

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def _metrics_page() -> str:
    """Return docs/reference/metrics.md."""
    return _METRICS_HEAD + "".join(
        f"| `{name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |\n"
        for name, metric in METRIC_DEFINITIONS.items()
    )


_SETTINGS_HEAD = """\
# Settings

Environment variables that the process reads at its start. An [option](../operate/running.md#settings) overrides its
variable. A reload changes none.

| setting | default | meaning |
|---|---|---|
"""


def _settings_page() -> str:
    """Return docs/reference/settings.md."""
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    shown = {name: "" if default is None else f"`{str(default).lower()}`" for name, default in defaults.items()}
    return _SETTINGS_HEAD + "".join(
        f"| `GATEWAY_{name.upper()}` | {shown[name]} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )


FILES: Mapping[Path, Callable[[], str]] = {
    CONFIG_SCHEMA: lambda: schema_json() + "\n",
    CATALOGUE_SCHEMA: lambda: catalogue_schema_json() + "\n",
    CONFIG_PAGE: lambda: reference_page(schema_json()),
    PROVIDERS_PAGE: lambda: providers_page(load_registry().adapters),
    MODELS_PAGE: lambda: models_page(load_registry().adapters),
    ERRORS_PAGE: lambda: errors_page(load_registry().adapters),
    FAULTS_PAGE: faults_page,
    METRICS_PAGE: _metrics_page,
    LICENCES_PAGE: licences_page,
    DEPENDENCIES_PAGE: dependencies_page,
    SETTINGS_PAGE: _settings_page,
    ADMIN_PAGE: admin_page,
    RIGHTS_PAGE: rights_page,
    DIALECT_PAGE: dialect_page,
    CALLS_PAGE: calls_page,
    LAWS_PAGE: laws_page,
    CONTRACT_PAGE: contract_page,
    TESTKIT_PAGE: testkit_page,
    SENSITIVE_KEYS: sensitive_keys_json,
    SENTENCE_TAGS: lambda: json.dumps(tags_of(next(iter(known_messages().values()))), indent=1, sort_keys=True) + "\n",
    **{page: partial(page_with_table, page) for page in TABLES},
    ERROR_CODES_PAGE: error_codes_page,
    WHERE_TO_ADD: where_to_add,
}
"""The function that writes the text of each generated file."""
MARKED: Mapping[Path, Callable[[], str]] = {TRANSLATED_README: translated_readme}
"""The files that only state that they are outdated: no check fails because of one."""


def main() -> None:
    """Write the files that are not current, and print their names."""
    for path, text_of in {**FILES, **MARKED}.items():
        text = text_of()
        if not path.is_file() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
