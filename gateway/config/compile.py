"""What is left of an entry that a mistake of shape has taken out: its names and places are judged all the same.

Whoever mends the one mistake is not to find the next one behind it: every mistake is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.config.clients import check_assistants, check_known_region, compile_clients, compile_cors
from gateway.config.credentials import compile_secrets
from gateway.config.deployments import compile_deployments, find_adapter
from gateway.config.endpoints import Endpoints, StatedFacts
from gateway.config.exporters import compile_exporters
from gateway.config.field_types import age_s, seconds, share
from gateway.config.loading import Document
from gateway.config.location import compile_location
from gateway.config.operator_catalogue import compile_catalogues
from gateway.config.problems import ConfigRejected, KeyPath, Problem
from gateway.config.regions import compile_cell, compile_regions
from gateway.config.routes import compile_assistants
from gateway.config.schema.routing import BreakerSection, ResilienceSection
from gateway.config.source_text import Reading, Written, secrets_in_clear
from gateway.config.territories import read_territories
from gateway.config.validation import Draft, Findings, validate
from gateway.model.approval import days_at
from gateway.model.config_version import BreakerRule, ConfigVersion, Resilience
from providers.registry import Registry

_PLACES = {"regions": ("territories", "boundary"), "deployments": ("stores", "processes", "available")}


def check_broken_entries(draft: Draft, findings: Findings, registry: Registry) -> None:
    """Report what is wrong with the sound parts of entries that are none by their shape."""
    for section, *name in sorted(draft.broken, key=str):
        entries = findings.source.values.get(str(section))
        written = entries.get(name[0]) if isinstance(entries, dict) and len(name) == 1 else None
        if not isinstance(written, dict):
            continue
        path: KeyPath = (section, *name)
        for key in _PLACES.get(str(section), ()):
            words = written.get(key)
            words = [words] if isinstance(words, str) else words
            if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
                read_territories(findings, (*path, key), words)
        if section == "deployments" and isinstance(provider := written.get("provider"), str):
            find_adapter(findings, path, provider, registry)
        elif section == "clients":
            _judge_client(draft, findings, path, written)


def _judge_client(draft: Draft, findings: Findings, path: KeyPath, written: dict[str, object]) -> None:
    names = written.get("assistants")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        check_assistants(draft, findings, path, names)
    if isinstance(region := written.get("region"), str):
        check_known_region(draft, findings, (*path, "region"), region)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A table that may be used, what its operator should know, and what stood in the files that were read for it."""

    table: ConfigVersion
    warnings: tuple[Problem, ...]
    files: Reading = field(default_factory=dict)
    written: Written | None = None


def compile_config(
    document: Document,
    *,
    registry: Registry,
    simulators: Mapping[tuple[str, str], str] | None = None,
    demo: bool = False,
) -> Compiled:
    """The table of a document, and the warnings; raises ConfigRejected with every mistake at once.

    simulators: the origin of each simulated (provider, site); None where none is started, as in a check. demo: as if
    the document said `demo: true`.
    """
    findings = Findings(document.source)
    draft = validate(findings)
    check_broken_entries(draft, findings, registry)
    demo = demo or draft.config.demo
    _check_sections(draft, findings)
    cell = compile_cell(draft, findings, demo=demo)
    regions = compile_regions(draft, findings, cell, document.read_at_s)
    stated = StatedFacts(findings)
    endpoints = Endpoints(findings, registry, simulators, demo, stated)
    days = days_at(document.read_at_s)
    secrets = compile_secrets(draft, findings, document.references)
    findings.problems.extend(document.catalogues.problems(findings))
    catalogue = compile_catalogues(document.catalogues.sources, findings, registry)
    deployments = compile_deployments(draft, findings, endpoints, document.references, days, secrets, catalogue)
    table = ConfigVersion(
        version=document.version,
        assistants=compile_assistants(draft, findings, regions, deployments, days),
        regions=regions.by_name,
        region_by_territory=regions.by_territory,
        default_region=regions.default,
        blocked=regions.blocked,
        deployments=deployments,
        clients=compile_clients(draft, findings, regions, demo=demo),
        location=compile_location(draft, findings, document, regions, demo=demo),
        resilience=_resilience(findings, draft.config.resilience),
        cell=cell,
        exporters=compile_exporters(draft, findings, regions, cell, stated, registry, document.references),
        cors=compile_cors(draft, findings),
        secrets=secrets,
        demo=demo,
        admin_keys=tuple(draft.config.admin_keys),
        receipts_keep_s=age_s(draft.config.receipts.keep),
        blocked_by=draft.config.blocked_by,
    )
    _check_protection(draft, findings)
    if findings.rejected:
        raise ConfigRejected(findings.problems)
    return Compiled(table, findings.warnings, document.files, document.written)


def _check_sections(draft: Draft, findings: Findings) -> None:
    for section in ("assistants", "regions", "deployments"):
        if not draft.names(section) and not draft.is_broken(section):
            findings.error((section,), "must not be empty", f"define at least one of the {section}")


def _check_protection(draft: Draft, findings: Findings) -> None:
    """Protection that nobody could ever lift would be lifted by taking the state directory away."""
    secrets = secrets_in_clear(findings.source.values)
    for name, section in draft.config.regions.items():
        if section.protected and secrets:
            message = f"needs a config that the history may keep, and this one holds a secret ({secrets[0]})"
            findings.error(("regions", name, "protected"), message, "write ${NAME} or ${file:/path} there")
        if section.protected and not draft.config.admin_keys and not draft.is_broken("admin_keys"):
            hint = "`gateway key new --ed25519 FILE` makes a pair; its public key goes into `admin_keys`"
            findings.error(("regions", name, "protected"), "needs `admin_keys`: nobody could sign a change", hint)


def _resilience(findings: Findings, section: ResilienceSection) -> Resilience:
    compiled = Resilience(
        attempts_per_deployment=section.attempts.per_deployment,
        attempts_total=section.attempts.total,
        connect_s=seconds(section.connect),
        first_token_s=seconds(section.first_token),
        commit_s=seconds(section.commit),
        idle_s=seconds(section.idle),
        total_s=seconds(section.total),
        failover_after_s=seconds(section.failover_after),
        keep_alive_s=seconds(section.keep_alive),
        breaker=_breaker(section.breaker),
        retry_budget=None if section.retry_budget == "off" else share(section.retry_budget),
    )
    for name, value, bound, limit in (
        ("first_token", compiled.first_token_s, "commit", compiled.commit_s),
        ("commit", compiled.commit_s, "total", compiled.total_s),
    ):
        if value > limit and name in section.model_fields_set:
            findings.warn(("resilience", name), f"is longer than `{bound}` ({limit:g}s), which ends the wait first")
    if compiled.attempts_per_deployment > compiled.attempts_total:
        findings.warn(
            ("resilience", "attempts"), "`per_deployment` is more than `total`, which ends the attempts first"
        )
    return compiled


def _breaker(section: BreakerSection | None) -> BreakerRule | None:
    if section is None:
        return None
    return BreakerRule(
        failures=section.failures,
        rate=share(section.rate),
        window_s=seconds(section.window),
        samples=section.samples,
        open_s=seconds(section.open),
    )
