"""The configurations of a region in some months, for `gateway evidence`: when each was active, by whom, with its rules.

They come from the history and the audit trail of the state directory or, with `stores.database`, from the record of the
cell in the shared database, which is only read: a user of PostgreSQL that may do nothing but SELECT is enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from gateway.cli.cell import opened_cell
from gateway.cli.plan import compiled_version
from gateway.cli.terminal import opened_history, state_directory
from gateway.config.problems import ConfigRejected
from gateway.model.units import at_second
from gateway.operator_errors import CommandError, StateError
from gateway.settings import Settings
from providers.value import Value

if TYPE_CHECKING:
    from gateway.cell.cell_record import CellRecord
    from gateway.changes.compile_job import CompiledState
    from gateway.model.approval import Approval
    from gateway.model.client_token import TokenIssuer
    from gateway.model.config_version import ConfigVersion
    from gateway.model.deployment import Deployment
    from gateway.state.audit import TrailVerdict
    from gateway.state.history import Activation, Version

_MOST_ACTIVATIONS = 10_000
_RUNS_S = 3600.0
"""A request that runs for longer, while the sample is changed, counts by the former sample."""
_Item = dict[str, object]


class RecordedChanges(Value, frozen=True):
    """The record of a state directory or of a cell about its configurations, and the result of checking its trails.

    Each activation has the id of its instance, which is None for this state directory. The oldest is the first.
    """

    activations: Sequence[tuple[str | None, Activation]]
    versions: Mapping[str, Version]
    trails: list[_Item]

    @classmethod
    def read(cls, settings: Settings) -> RecordedChanges:
        """Read the record of the cell or, without one, that of the state directory. Raises CommandError."""
        try:
            with opened_cell(settings) as database:
                if database is not None:
                    from gateway.cell.cell_record import CellRecord

                    return cls._of_cell(CellRecord(database))
            return cls._of_directory(settings)
        except StateError as error:
            raise CommandError(f"{error}; without a history, it is not known which configuration was active") from None

    @classmethod
    def _of_cell(cls, record: CellRecord) -> RecordedChanges:
        from gateway.state.audit import key_hashes, verify_lines

        versions = {it.version: it for it in record.versions()}
        keys = key_hashes(it.text for it in versions.values())
        trails = [_trail(name, verify_lines(record.lines(name), {}, keys)) for name in record.trails()]
        return cls(record.activations(_MOST_ACTIVATIONS)[::-1], versions, trails)

    @classmethod
    def _of_directory(cls, settings: Settings) -> RecordedChanges:
        from gateway.state.audit import key_hashes, verify_trail

        with opened_history(settings) as history:
            activations = [(None, item) for item in history.activations(_MOST_ACTIVATIONS)[::-1]]
            versions = {it.version: it for it in history.versions()}
            head = history.audit_head()
        keys = key_hashes(it.text for it in versions.values())
        trail = verify_trail(state_directory(settings), {"history.db": head}, keys)
        return cls(activations, versions, [_trail(None, trail)])

    def audit(self) -> _Item:
        """Return whether the chain of each audit trail is whole."""
        problems = [f"{it['instance'] or ''} {it['problem']}".strip() for it in self.trails if it["problem"]]
        lines = sum(int(str(it["lines"])) for it in self.trails)
        if not lines and not problems:  # a gateway writes a line when it starts
            problems = ["it has no lines"]
        return {"lines": lines, "ok": not problems, "problem": "; ".join(problems) or None, "trails": self.trails}


def _trail(instance: str | None, verdict: TrailVerdict) -> _Item:
    problem = next(verdict.findings(), None)
    return {"instance": instance, "lines": verdict.lines, "head": verdict.head.hash, "problem": problem}


class ActiveConfigs(Value, frozen=True):
    """The configurations that were active in a period, oldest first."""

    names: set[str]
    items: list[_Item]
    """When each was active, by whom, and its rules in words."""
    states: list[tuple[CompiledState, str]]
    """The versions that can be compiled, each with a name that the region had there, the last first."""
    recorded_since: str | None
    """When the record begins, if it begins after the period does."""
    samples: list[tuple[float, float, float]]
    """The share of successful requests whose receipts were kept, from a Unix time to another."""
    instances: int
    """How many instances activated them. A state directory has the receipts of one."""
    unreadable: Mapping[str, str]
    """Why the rules of a version cannot be shown, by its name."""

    @classmethod
    def read(
        cls, recorded: RecordedChanges, settings: Settings, region: str, since_s: float, until_s: float
    ) -> ActiveConfigs:
        """Compile each version once, without secrets.

        Where no version can be compiled, the ledger alone knows whether there was such a region. Raises CommandError if
        some can be compiled, and none has the region.
        """
        ends_s = _ends(recorded.activations)
        shown = [
            (instance, item, end_s)
            for (instance, item), end_s in zip(recorded.activations, ends_s, strict=True)
            if item.at_s < until_s and (end_s is None or end_s > since_s)
        ]
        compiled = {
            item.version: _compiled(recorded.versions.get(item.version.partition("+")[0]), settings)
            for _, item, _ in shown
        }
        states = [state for _, item, _ in shown if not isinstance(state := compiled[item.version], str)]
        names = _names_of(region, [state.config for state in states]) if states else {region}
        if not names:
            known = sorted({name for state in states for name in state.config.regions})
            raise CommandError(
                f"--region: no configuration of these months has {region!r}; they have {', '.join(known)}"
            )
        items: list[_Item] = [
            {
                "version": item.version,
                "instance": instance,
                "at": at_second(item.at_s),
                "until": at_second(end_s) if end_s is not None else None,
                "who": item.who or None,
                "cause": item.cause,
                "lines": _lines(compiled[item.version], names),
            }
            for instance, item, end_s in shown
        ]
        last_first = list({id(state): state for state in states[::-1]}.values())
        named = [(state, name) for state in last_first for name in state.config.regions if name in names]
        first_s = min(item.at_s for _, item in recorded.activations)
        samples = [
            (item.at_s, end_s if end_s is not None else math.inf, state.config.receipts.sample)
            for _, item, end_s in shown
            if not isinstance(state := compiled[item.version], str)
        ]
        instances = len({instance for instance, _, _ in shown})
        since = at_second(first_s) if first_s > since_s else None
        unreadable = {version: state for version, state in compiled.items() if isinstance(state, str)}
        return cls(names, items, named, since, samples, instances, unreadable)

    def least_sample(self, at_s: float) -> float:
        """Return the smallest share of kept receipts at this time, by the configuration at the end of a request."""
        shares = {share for _, _, share in self.samples}
        if len(shares) == 1:  # most regions: a month may have a million requests
            return shares.pop()
        ended_s = at_s + _RUNS_S
        return min(
            (share for since_s, until_s, share in self.samples if since_s < ended_s and at_s < until_s), default=1.0
        )

    def document(self, now_s: float) -> dict[str, object]:
        """Return what they state: rules of the last one; approvals, attestations, consents and vendors of all."""
        from gateway.service.explain import consent_of

        asked = [(state, name, it) for state, name in self.states for it in _recipients(state.config, name)]
        return {
            "recorded_since": self.recorded_since,
            "configurations": self.items,
            "configurations_not_read": [*self.unreadable],
            "rules": _rules(*self.states[0]) if self.states else None,
            "approvals": _different(
                _approval(it, one) for _, name, it in asked for one in it.approvals if one.region == name
            ),
            "attestations": _different(
                {"deployment": it.name, "attests": words}
                for state, _, it in asked
                if (words := _attests(state, it.name))
            ),
            "consents": _different(
                {"deployment": it.name, **rule} for _, _, it in asked if (rule := consent_of(it)) is not None
            ),
            "token_issuers": _different(
                _token_issuer(one) for state, _ in self.states for one in state.config.token_issuers.values()
            ),
            "vendors": _different((_vendor(it, now_s) for _, _, it in asked), ("source", "as_of", "unconfirmed")),
        }


def _ends(activations: Iterable[tuple[str | None, Activation]]) -> list[float | None]:
    """Return when the next activation of the same instance ended each, or None."""
    ends: list[float | None] = []
    following: dict[str | None, float] = {}
    for instance, item in [*activations][::-1]:
        ends.append(following.get(instance))
        following[instance] = item.at_s
    return ends[::-1]


def _compiled(version: Version | None, settings: Settings) -> CompiledState | str:
    """Return a version, or why it cannot be compiled any more."""
    try:
        return compiled_version(version, settings.config, secrets=False) if version is not None else "it isn't stored"
    except (StateError, ConfigRejected) as error:
        return str(error)


def _names_of(region: str, configs: Iterable[ConfigVersion]) -> set[str]:
    """Return all names of the region: another name of the same territories in the next version is a new name of it."""
    versions = [*configs]
    names = {region} if any(region in config.regions for config in versions) else set()
    is_growing = bool(names)
    while is_growing:
        before = len(names)
        for one, other in (*pairwise(versions), *pairwise(versions[::-1])):
            for name in names & one.regions.keys() - other.regions.keys():
                places = one.regions[name].territories
                new = other.regions.keys() - one.regions.keys()
                names |= {it for it in new if other.regions[it].territories == places}
        is_growing = len(names) > before
    return names


def _lines(state: CompiledState | str, names: set[str]) -> list[str]:
    """Return the rules and the routes of the region in words."""
    from gateway.config.check_report import region_lines, route_lines

    if isinstance(state, str):
        return [f"it can't be shown: {state}"]
    config, lines = state.config, list[str]()
    for name in (it for it in config.regions if it in names):
        lines += [line.strip() for line in region_lines(config.regions[name], config)]
        for assistant in config.own_assistants.values():
            if name in assistant.regions:
                lines += [
                    f"prompts of {assistant.name} go to",
                    *(line[2:] for line in route_lines(assistant, name, config)),
                ]
    return lines or ["the region did not exist"]


def _recipients(config: ConfigVersion, region: str) -> Iterator[Deployment]:
    """Yield each deployment that prompts of the region may reach, also judges."""
    from gateway.changes.plan import deployments_prompted

    judges = config.moderation.get(region)
    found = [it for assistant in config.own_assistants.values() for it in deployments_prompted(assistant, region)]
    found += judges.judges if judges is not None else ()
    found += [config.deployments[name] for name in config.regions[region].judges]
    yield from {it.name: it for it in found}.values()


def _different(items: Iterable[_Item], besides: tuple[str, ...] = ()) -> list[_Item]:
    """Return the first of the items that are equal, apart from these members."""
    found: dict[str, _Item] = {}
    for item in items:
        found.setdefault(repr([it for name, it in item.items() if name not in besides]), item)
    return [*found.values()]


def _approval(deployment: Deployment, approval: Approval) -> _Item:
    days = {name: getattr(approval, name) for name in ("valid_from", "valid_until")}
    return {
        "deployment": deployment.name,
        **{name: getattr(approval, name) for name in ("region", "authority", "kind", "number", "model_name")},
        **({"approved_model": approval.model} if approval.model is not None else {}),
        **{name: str(day) if day is not None else None for name, day in days.items()},
    }


def _attests(state: CompiledState, deployment: str) -> list[str]:
    sections = state.written.values.get("deployments") if state.written is not None else None
    section = sections.get(deployment) if isinstance(sections, dict) else None
    return list(section.get("attests") or ()) if isinstance(section, dict) else []


def _token_issuer(issuer: TokenIssuer) -> _Item:
    """Return the issuer, without the clients and values of its rules."""
    from gateway.model.signed_token import KeyUrl

    keys = issuer.keys.permit.origin if isinstance(issuer.keys, KeyUrl) else "a file"
    return {"name": issuer.name, "issuer": issuer.issuer, "keys_from": keys, "rules": len(issuer.clients)}


def _vendor(deployment: Deployment, now_s: float) -> _Item:
    from gateway.service.explain import facts_of

    sign_in = deployment.sign_in
    return {
        "provider": deployment.provider,
        "deployment": deployment.name,
        "host": deployment.origin,
        **{
            part: fact
            for part, fact in facts_of(deployment, now_s).items()
            if part not in ("places", "proxy", "sign_in")
        },
        "proxy": deployment.proxy.origin if deployment.proxy is not None else None,
        "sign_in_hosts": [place.host for place in sign_in.places] if sign_in is not None else [],
    }


def _rules(state: CompiledState, name: str) -> _Item:
    """Return labels, moderation and the rules of features as they are configured."""
    from gateway.config.check_report import feature_lines

    region, judges = state.config.regions[name], state.config.moderation.get(name)
    locales = region.texts.locales if region.texts is not None else {}
    return {
        "labels": [
            {"locale": locale, "name": one.name, "text": one.text, "show": one.show, "signed": one.proof is not None}
            for locale, texts in locales.items()
            for one in texts.labels
        ],
        "moderation": str(judges) if judges is not None else None,
        "features": [{"rule": rule, "text": text} for rule, text in feature_lines(region)],
    }
