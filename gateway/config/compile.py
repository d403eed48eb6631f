"""Compile a `Document` into a `ConfigVersion`, and report all errors together.

A part with an error of shape is removed before the rest is compiled. The other keys of this part are compiled again for
their errors alone, so that fixing one error does not reveal the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

from gateway.config.age_bands import check_ages
from gateway.config.client_tokens import compile_token_issuers
from gateway.config.clients import compile_clients, compile_cors
from gateway.config.credentials import SIMULATED_KEY, compile_secrets
from gateway.config.deployments import DeploymentCompiler
from gateway.config.endpoints import Endpoints
from gateway.config.exporters import compile_exporters
from gateway.config.fact_ages import warn_of_facts
from gateway.config.feature_compiler import FeatureCompiler
from gateway.config.links import Links
from gateway.config.loading import Document
from gateway.config.location import compile_location
from gateway.config.moderation import RegionJudges, compile_moderation, judges_of_regions
from gateway.config.operator_catalogue import compile_catalogues
from gateway.config.problems import ConfigRejected, KeyPath, Problem
from gateway.config.quotas import check_quotas, compile_quotas
from gateway.config.region_text import ends_of_laws
from gateway.config.regions import Regions, compile_cell, compile_regions
from gateway.config.routes import AssistantCompiler, check_barriers
from gateway.config.schema.file import GatewaySection, file_section
from gateway.config.sensitive_keys import secrets_in_clear
from gateway.config.sentences import compile_messages
from gateway.config.sign_ins import compile_sign_ins, sign_in_of
from gateway.config.source_text import Reading, SourceText
from gateway.config.stores import compile_stores
from gateway.config.usage import SpendingCompiler, check_prices, compile_usage
from gateway.config.validation import Draft, Findings, provisional, validate
from gateway.model.approval import days_at
from gateway.model.config_version import ConfigVersion, Exporter, Secrets
from gateway.model.deployment import Deployment
from gateway.model.parts import NO_PARTS, Parts
from gateway.model.quota import Quota
from gateway.model.sign_in import SignIn
from gateway.model.wrapper import Wrapper
from providers.openai_json.misspelled_fields import meant_field
from providers.registry import Registry
from providers.value import Value, replace

_NEEDED: Mapping[tuple[str | int, ...], tuple[str, ...]] = {
    ("deployments", "headers"): ("provider",),
    ("deployments", "endpoint"): ("provider",),
    ("exporters", "regions"): ("stores", "processes"),
    ("regions", "hours"): ("timezone",),
}
"""Keys whose check needs other keys of the entry, or of the mapping in it, by section and key."""
_AS_WRITTEN = "resilience admin_keys receipts log websocket blocked_by clients_source keys".split()
"""The sections and keys that a version has as the file has them."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled config version, with its warnings, the digests of the files that were read for it, and wrappers."""

    config: ConfigVersion
    warnings: tuple[Problem, ...]
    files: Reading = field(default_factory=dict)
    written: SourceText | None = None
    wrappers: Mapping[str, Wrapper] = field(default_factory=dict)


def compile_config(
    document: Document,
    *,
    registry: Registry,
    features: Sequence[FeatureCompiler],
    simulators: Mapping[tuple[str, str], str] | None = None,
    demo: bool = False,
    demo_territory: str | None = None,
    simulated: bool = False,
) -> Compiled:
    """Compile a document. Raises ConfigRejected with all its errors.

    `features` are asked in their order. `simulators` has the origin of each simulated (provider, site), or is None in a
    check, which starts none. `simulated` puts every deployment at a simulator, and leaves out what else the gateway
    would call. `demo_territory` is that of callers of a demo whom no signal locates.
    """
    draft = validate(document, _section_of(tuple(features)))
    options = _Options(registry, features, simulators, demo or draft.config.demo, demo_territory, simulated)
    parts = frozenset(draft.broken)
    config = _compile(draft, options)
    _check_broken_parts(draft, parts, options)
    if draft.rejected:
        raise ConfigRejected(draft.problems)
    return Compiled(config, draft.warnings, document.files, document.written, draft.wrappers)


@cache
def _section_of(features: tuple[FeatureCompiler, ...]) -> type[GatewaySection]:
    return file_section([key for feature in features for key in feature.keys])


class _Options(Value, frozen=True):
    """The arguments of `compile_config`, without the document."""

    registry: Registry
    features: Sequence[FeatureCompiler]
    simulators: Mapping[tuple[str, str], str] | None
    demo: bool
    demo_territory: str | None
    simulated: bool

    @property
    def is_rehearsal(self) -> bool:
        """Whether a real config is compiled with simulated providers."""
        return self.simulated and not self.demo


class _Called(Value, frozen=True):
    """The servers that the gateway calls, and its own keys."""

    deployments: Mapping[str, Deployment]
    sign_ins: Mapping[str, SignIn]
    exporters: tuple[Exporter, ...]
    secrets: Secrets
    quotas: Mapping[str, Quota]


def _compile(draft: Draft, options: _Options) -> ConfigVersion:
    """Return the version that the draft describes. It may be used only if nothing was found wrong."""
    demo, features, document = options.demo, options.features, draft.document
    for section in ("assistants", "regions", "deployments"):
        if not draft.names(section) and not draft.is_broken(section):
            draft.error((section,), "must not be empty", f"define at least one of the {section}")
    for of_draft in [feature.of_draft for feature in features if feature.of_draft is not None]:
        of_draft(draft)
    cell = compile_cell(draft, demo=demo)
    of_regions = [feature.of_region for feature in features if feature.of_region is not None]
    regions = compile_regions(draft, cell, of_regions)
    called = _called(draft, options, regions)
    deployments = called.deployments
    assistants = AssistantCompiler(draft, regions, deployments, days_at(document.read_at_s), features).compiled()
    moderation = compile_moderation(draft, regions, deployments)
    judges = judges_of_regions(regions, moderation, deployments)
    usage = compile_usage(draft, regions)
    spending = SpendingCompiler(draft, usage)
    clients = compile_clients(draft, regions, spending, demo=demo)
    check_prices(draft, usage, clients.values(), assistants, judges)
    if draft.config.websocket is not None and (unfit := draft.config.websocket.problem()) is not None:
        draft.error(("websocket", unfit[0]), unfit[1].message, unfit[1].hint)
    config = ConfigVersion(
        **{name: getattr(draft.config, name) for name in _AS_WRITTEN},
        version=document.version,
        assistants=assistants,
        regions=regions.by_name,
        region_by_territory=regions.by_territory,
        default_region=regions.default,
        blocked=regions.blocked,
        deployments=deployments,
        clients=clients,
        location=compile_location(draft, regions, demo=demo, demo_territory=options.demo_territory),
        cell=cell,
        exporters=called.exporters,
        cors=compile_cors(draft, demo=demo),
        secrets=called.secrets,
        demo=demo,
        simulated=options.is_rehearsal,
        real=document.real,
        messages=compile_messages(draft),
        moderation=moderation,
        known_fields=_known_fields(options.registry, deployments),
        projects=spending.projects,
        usage=usage,
        quotas=called.quotas,
        law_ends=ends_of_laws(draft),
        stores=compile_stores(draft, regions),
        token_issuers=compile_token_issuers(draft),
        parts=_parts(draft, features),
        sign_ins=called.sign_ins,
    )
    _check_version(draft, config, judges, features)
    if not options.is_rehearsal:
        return config
    # It calls nothing else. An alert of a budget is still logged and counted.
    alerts = config.usage.alerts
    usage = replace(config.usage, alerts=replace(alerts, webhook=None)) if alerts is not None else config.usage
    return replace(config, exporters=(), stores=None, sign_ins={}, usage=usage)


def _called(draft: Draft, options: _Options, regions: Regions) -> _Called:
    """Return what the gateway calls. All of it that names one server states the same facts about it."""
    read_at_s, links = draft.document.read_at_s, Links(draft)
    endpoints = Endpoints(draft, options.registry, options.simulators, options.demo, options.is_rehearsal)
    secrets = compile_secrets(draft)
    catalogue = compile_catalogues(draft, options.registry)
    sign_ins = compile_sign_ins(draft, links, regions.cell)
    parts = [feature.of_deployment for feature in options.features if feature.of_deployment is not None]
    days = days_at(read_at_s)
    quotas = compile_quotas(draft)
    sign_in = partial(sign_in_of, draft, sign_ins)
    deployments = DeploymentCompiler(draft, endpoints, links, days, secrets, catalogue, sign_in, quotas).compiled(parts)
    if options.is_rehearsal:
        deployments = _rehearsed(deployments)
    warn_of_facts(draft, deployments.values(), read_at_s)
    return _Called(deployments, sign_ins, compile_exporters(draft, regions, endpoints), secrets, quotas)


def _check_version(
    draft: Draft, config: ConfigVersion, judges: RegionJudges, features: Sequence[FeatureCompiler]
) -> None:
    """Report the mistakes that only the whole configuration shows."""
    check_barriers(draft, config.assistants, judges)
    check_quotas(draft, config)
    check_ages(draft, config)
    for check in [feature.check for feature in features if feature.check is not None]:
        check(draft, config)
    _check_spaces(draft, config)
    _check_resilience(draft)
    _check_protection(draft)


def _parts(draft: Draft, features: Sequence[FeatureCompiler]) -> Parts:
    """Return what features hang on the whole version."""
    parts = NO_PARTS
    for of_config in [feature.of_config for feature in features if feature.of_config is not None]:
        parts = parts.having(of_config(draft))
    return parts


def _check_broken_parts(draft: Draft, parts: frozenset[KeyPath], options: _Options) -> None:
    """Report the other mistakes of the parts that were removed for their shape.

    The rest of these parts is compiled for its errors alone. An error at a wrong key, at a key that is not written, or
    at an entry as a whole may be a consequence of the error of shape, so it is not reported.
    """
    rest = provisional(draft)
    if rest is None:
        return
    _compile(rest, options)
    for problem in rest.problems:
        is_inside = any(len(problem.path) > len(part) and problem.path[: len(part)] == part for part in parts)
        is_at_wrong_key = any(problem.path[: len(key)] == key[: len(problem.path)] for key in draft.wrong)
        is_written = draft.source.has(problem.path)
        is_consequence = is_at_wrong_key or not is_written or _needs_wrong_key(problem.path, draft.wrong)
        if problem.severity == "error" and is_inside and not is_consequence:
            draft.problems.append(problem)


def _needs_wrong_key(path: KeyPath, wrong: frozenset[KeyPath]) -> bool:
    """Return whether the check of this key needs another key of its entry that is wrong."""
    ends = {2, len(path) - 1} if len(path) > 2 else ()
    return any((*path[:end], key) in wrong for end in ends for key in _NEEDED.get((path[0], path[end]), ()))


def _known_fields(registry: Registry, deployments: Mapping[str, Deployment]) -> frozenset[str]:
    """Return the fields that differ from a standard field by one letter, and that no request is refused for."""
    known: set[str] = set()
    for adapter in registry.adapters.values():
        known |= adapter.capabilities.parameters
    for deployment in deployments.values():
        known |= deployment.target.passthrough
    return frozenset(name for name in known if meant_field(name) is not None)


def _check_spaces(findings: Findings, config: ConfigVersion) -> None:
    """Warn about hidden models of embeddings: without a key, the name of their space is of one start only."""
    if config.secrets.identity or config.secrets.consent:
        return
    for name, assistant in config.own_assistants.items():
        if assistant.routes_for("embeddings") and not assistant.reveal_model:
            message = "hides the model in the name of the embedding space, which changes at each start"
            findings.warn(("assistants", name, "reveal_model"), message, "set `secrets.identity`")


def _check_protection(draft: Draft) -> None:
    """Report a protected region that could never be changed: the operator would have to delete the state directory."""
    protected = [name for name, section in draft.config.regions.items() if section.protected]
    secrets = secrets_in_clear(draft.source.values) if protected else []
    for name in protected:
        if secrets:
            message = f"needs a config that can be kept in the history, but this one contains a secret ({secrets[0]})"
            draft.error(("regions", name, "protected"), message, "write ${NAME} or ${file:/path} there")
        if not draft.config.admin_keys and not draft.is_broken("admin_keys"):
            hint = "`gateway key new --ed25519 FILE` creates a key pair; add its public key to `admin_keys`"
            draft.error(("regions", name, "protected"), "needs `admin_keys`, or no change could be signed", hint)


def _check_resilience(draft: Draft) -> None:
    bounds = draft.config.resilience
    for name, value, bound, limit in (
        ("first_token", bounds.first_token_s, "commit", bounds.commit_s),
        ("commit", bounds.commit_s, "total", bounds.total_s),
    ):
        if value > limit and name in draft.keys_of("resilience"):
            draft.warn(("resilience", name), f"is longer than `{bound}` ({limit:g}s), which ends first")
    if bounds.attempts.per_deployment > bounds.attempts.total:
        draft.warn(("resilience", "attempts"), "`per_deployment` is more than `total`, which is reached first")
    breaker = bounds.breaker
    if breaker is not None and breaker.longest_open_s < breaker.open_s:
        message = f"is shorter than `open` ({breaker.open_s:g}s), so the breaker never stays open for that long"
        draft.warn(("resilience", "breaker", "max_open"), message, "set it to at least `open`, or shorten `open`")


def _rehearsed(deployments: Mapping[str, Deployment]) -> dict[str, Deployment]:
    """Return the deployments of a real config as simulated ones.

    Each keeps its facts, its place and its path, so that the fence and the routes decide as they do for the real ones.
    It is called directly, without its own headers, and with the key that its simulator expects, also in place of none.
    One that needs a key and has none in the config stays without.
    """
    return {
        name: replace(
            deployment,
            simulates=deployment.site,
            credentials=(SIMULATED_KEY,) if deployment.has_credential else (),
            headers=(),
            link=None,
        )
        for name, deployment in deployments.items()
    }
