"""A document -> the table: what `check` runs and what a reload runs, so that both see the same problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.config.catalogues import compile_catalogues
from gateway.config.cells import compile_cell
from gateway.config.clients import compile_clients, compile_cors
from gateway.config.consent import compile_secrets
from gateway.config.deployments import compile_deployments
from gateway.config.endpoints import Endpoints
from gateway.config.exporters import compile_exporters
from gateway.config.findings import Findings
from gateway.config.in_clear import secrets_in_clear
from gateway.config.leftovers import judge_leftovers
from gateway.config.load import Document
from gateway.config.location import compile_location
from gateway.config.origins import StatedFacts
from gateway.config.problems import ConfigRejected, Problem
from gateway.config.regions import compile_regions
from gateway.config.routes import compile_assistants
from gateway.config.scalars import age_s, seconds
from gateway.config.sections.resilience import BreakerSection, ResilienceSection
from gateway.config.shares import share
from gateway.config.validate import Draft, validate
from gateway.config.watch import Reading
from gateway.config.written import Written
from gateway.model.approval import days_at
from gateway.model.table import BreakerRule, Resilience, Table
from providers.registry import Registry

__all__ = ["Compiled", "compile_config"]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A table that may be used, what its operator should know, and what stood in the files that were read for it."""

    table: Table
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
    judge_leftovers(draft, findings, registry)
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
    table = Table(
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
