"""Render the output of `gateway check`: the problems, and the matrix of routes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from textwrap import wrap

from gateway.config.fact_ages import dated, oldest_fact, unconfirmed_facts
from gateway.config.limits_report import limit_lines
from gateway.config.problems import Problem, dotted, visible
from gateway.config.routes import ineligible_now
from gateway.model.answer_change import territory_list
from gateway.model.approval import Days
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Exporter, Region
from gateway.model.deployment import Deployment
from gateway.model.route import Route, WeightedSet, deployments_of
from gateway.model.schedule import Schedule
from gateway.model.served import USES, Use
from gateway.model.units import first_names
from gateway.model.wrapper import Wrapper
from gateway.operator_errors import CommandError, RejectedConfig
from gateway.policy.fence import wrapper_of_step
from gateway.policy.location import SIGNALS, can_locate
from gateway.policy.territory_answers import unanswered
from providers.catalogue.prices import Price, shown_amount
from providers.matching.requirements import CACHE_KEY, FEATURES, TOOL_FEATURES
from providers.sites import Residency
from providers.territories import Places, territory_data

_WIDTH = 100
_LISTED_WARNINGS = 8
"""Up to this number, similar warnings are printed line by line."""
_LISTED_NAMES = 8
_LISTED_GAPS = 24
_PRICE_DAYS = 30
_NAME = re.compile(r"'[^']*'|\b[A-Z][A-Z0-9]*_[A-Z0-9_]*\b|\d+")
"""A part of a message that may differ between similar warnings: a quoted name, an environment variable, a number."""
_Gaps = Mapping[tuple[str, Use], list[str]]
_NO_GAPS: _Gaps = {}


def render_problems(problems: Iterable[Problem], *, every_warning: bool = False) -> str:
    """Return the problems as lines with their number at the end, or an empty text if there are no problems.

    Errors come last, where a terminal shows them. If many entries have the same warning, one line stands for them,
    unless `every_warning` is asked for.
    """
    ordered = sorted(problems, key=lambda problem: problem.order)
    if not ordered:
        return ""
    warnings = [problem for problem in ordered if problem.severity == "warning"]
    errors = [problem for problem in ordered if problem.severity == "error"]
    counts = ", ".join(filter(None, [_count(len(errors), "error"), _count(len(warnings), "warning")]))
    shown = [*map(str, warnings)] if every_warning else [*_grouped(warnings)]
    if len(shown) < len(warnings):
        counts += " (`gateway check --all` prints each warning)"
    return "\n".join([*shown, *map(str, errors), "", counts])


def sound_text(warnings: Sequence[Problem]) -> str:
    """Return the last line about a config without errors, such as `no errors, 2 warnings`."""
    return ", ".join(filter(None, ("no errors", _count(len(warnings), "warning"))))


def _grouped(warnings: Sequence[Problem]) -> Iterator[str]:
    """Yield the lines of warnings. The first of many similar ones stands for them, with the names of the others."""
    groups: dict[tuple[object, ...], list[Problem]] = {}
    for warning in warnings:
        groups.setdefault(_kind_of(warning), []).append(warning)
    for warning, group in ((warning, groups[_kind_of(warning)]) for warning in warnings):
        if len(group) <= _LISTED_WARNINGS:
            yield str(warning)
        if len(group) <= _LISTED_WARNINGS or warning is not group[0]:
            continue
        names = list(dict.fromkeys("/".join(_entry_of(other)) for other in group[1:]))
        yield str(warning)
        yield visible(f"    the same for {first_names(names, _LISTED_NAMES)}")


def _kind_of(warning: Problem) -> tuple[object, ...]:
    """Return a key that is equal for warnings that differ only in the entry, in its key or in a number."""
    if len(warning.path) < 2:
        return (warning,)
    entry, texts = _entry_of(warning), [warning.message, warning.hint]
    for name in entry:
        texts = [re.sub(rf"\b{re.escape(name)}\b", "*", text) for text in texts]
    keys = tuple(part for part in warning.path if part not in entry)
    return (warning.file, keys, *(_NAME.sub("*", text) for text in texts))


def _entry_of(warning: Problem) -> tuple[str, ...]:
    """Return the names of the entry: of a deployment or a region, or of an assistant and the region of its route."""
    is_route = warning.path[0] == "assistants" and len(warning.path) > 3
    return tuple(map(str, warning.path[1:4:2] if is_route else warning.path[1:2]))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}" if number else ""


def render_matrix(
    config: ConfigVersion, days: Days | None = None, now_s: float | None = None, *, every_territory: bool = False
) -> str:
    """Return the matrix of routes: for each assistant and region, the steps in order.

    Each step is shown with the territories where it stores and processes, and with the reason if it is skipped now for
    every request. Without `days`, approvals are not checked. `now_s` is the time of the prices (Unix time).
    Territories of a region where no deployment may answer are listed: all of them with `every_territory`.
    """
    now_s = time.time() if now_s is None else now_s
    lines = [
        f"config {config.version}{' (demo)' if config.demo else ''}",
        *_cell(config),
        *_samples(config),
        "",
        "regions",
    ]
    for region in config.regions.values():
        lines += region_lines(region, config)
    if config.blocked.included:
        lines += _wrapped("  blocked: ", str(config.blocked))
    if config.location.rules.country_only:
        countries = ", ".join(sorted(config.location.rules.country_only))
        lines += _wrapped("  accepted without their part: ", countries)
    lines += _unplaced(config)
    lines += ["", "deployments"] if config.deployments else []
    for name, can in what_deployments_can(config).items():
        words = [f"{word} (emulated)" if is_emulated else word for word, is_emulated in can.items()]
        lines += _wrapped(f"  {name} can: ", ", ".join(words))
        if (cache_key := _cache_key(config.deployments[name])) is not None:
            lines += _wrapped(f"  {name} gets as a cache key: ", cache_key)
        if config.deployments[name].cache == "auto":
            lines.append(f"  {name} gets the mark of a prompt cache from the gateway (`cache: auto`)")
        if (isolation := config.deployments[name].cache_isolation) is not None:
            lines.append(f"  {name} gets a salt for its cache by {isolation} (`cache_isolation`)")
    for assistant in config.own_assistants.values():
        gaps = _gaps(assistant, config, now_s, None if every_territory else _LISTED_GAPS)
        lines += ["", *_assistant(assistant, config, days, gaps)]
    for title, listed in (
        ("sign-ins", [_wrapped(*it.check_line()) for it in config.sign_ins.values()]),
        ("issuers of clients' tokens", [_wrapped(*it.check_line()) for it in config.token_issuers.values()]),
        ("exporters", [_exporter(it, config) for it in config.exporters]),
    ):
        lines += ["", title] if listed else []
        lines += chain.from_iterable(listed)
    for start, text in limit_lines(config):
        lines += _wrapped(start, text) if text else [start] if start.startswith(" ") else ["", start]
    lines += _price_changes(config, now_s)
    lines += _facts(config, now_s)
    return "\n".join(lines)


def what_deployments_can(config: ConfigVersion) -> dict[str, dict[str, bool]]:
    """Return what requests each deployment answers, as words of `capabilities`, each with whether it is emulated.

    `text` stands for chats, which only a deployment of embeddings or moderations alone does not have.
    """
    uses: dict[str, set[Use]] = {}
    for assistant in config.assistants.values():
        for use in USES:
            for route in assistant.routes_for(use).values():
                for deployment in deployments_of(route):
                    uses.setdefault(deployment.name, set()).add(use)
    return {name: _can(it, uses.get(name, {"chat"})) for name, it in config.deployments.items()}


def _can(deployment: Deployment, uses: Set[Use]) -> dict[str, bool]:
    others: dict[str, bool] = {use: False for use in USES[1:] if use in uses}
    if "chat" not in uses:
        return others
    emulated = deployment.emulated
    features = deployment.capabilities.features & FEATURES | emulated
    ordered = sorted(features, key=lambda word: (word != "tools", word not in TOOL_FEATURES, word[:4] != "json", word))
    return {"text": False, **{word: word in emulated for word in ordered}, **others}


def _cache_key(deployment: Deployment) -> str | None:
    """Return what a deployment gets in place of `prompt_cache_key`, or None if its provider does not have the field."""
    if not deployment.knows_cache_key:
        return None
    everywhere, protected = (deployment.treatment_of(CACHE_KEY, "chat", protected=it) for it in (False, True))
    words = {"pseudonym": "a pseudonym", "strip": "nothing", "pass": "the client's own"}[everywhere]
    if everywhere != protected:
        words += "; nothing of protected regions, until `cache_key` is written"
    return words


def check_document(config: ConfigVersion, warnings: Iterable[Problem]) -> dict[str, object]:
    """Return what `gateway check --json` prints of a valid config: abilities, sign-ins and warnings."""
    abilities = what_deployments_can(config)
    return {
        "config": config.version,
        "deployments": {
            name: {
                "provider": it.provider,
                "model": it.model,
                "can": [*abilities[name]],
                "cache_key": it.treatment_of(CACHE_KEY, "chat", protected=False) if it.knows_cache_key else None,
                "cache": it.cache,
                "cache_isolation": it.cache_isolation,
                "emulated": [word for word, is_emulated in abilities[name].items() if is_emulated],
            }
            for name, it in config.deployments.items()
        },
        "sign_ins": {
            name: {
                "kind": it.kind,
                "hosts": [
                    {"host": at.host, "territory": str(at.places), "accepted": at.is_accepted} for at in it.places
                ],
                "read_from": [*it.read_from],
            }
            for name, it in config.sign_ins.items()
        },
        "warnings": [{"path": dotted(it.path), "message": it.message, "hint": it.hint} for it in warnings],
    }


def _cell(config: ConfigVersion) -> Iterator[str]:
    if config.cell is not None:
        serves = config.cell.serves
        regions = "every region" if serves is None else ", ".join(name for name in config.regions if name in serves)
        yield from _wrapped(f"this cell runs in {config.cell.territory} and serves ", regions)


def _samples(config: ConfigVersion) -> Iterator[str]:
    """Yield the shares of log lines and receipts that are kept, if they are not all."""
    for key, what, share in (
        ("log.sample", "log lines", config.log.sample),
        ("receipts.sample", "receipts", config.receipts.sample),
    ):
        if share < 1:
            kept = f"{what} are kept for {share * 100:g}% of the successful requests, and for all others"
            yield from _wrapped(f"{key}: ", kept)


def _unplaced(config: ConfigVersion) -> Iterator[str]:
    """Warn if no signal can locate a caller. The file that `gateway init` writes has none."""
    if not can_locate(config):
        keys = dict.fromkeys(signal.setup_key for signal in SIGNALS.values() if signal.setup_key is not None)
        fix = f"bind a client to a `region`, or set up one of {', '.join(f'`{key}`' for key in keys)}"
        refused = "no signal locates a caller, so every request is refused"
        if config.clients_source == "database":
            refused = "no signal locates a caller, except a client of the database with a region; others are refused"
        yield from _wrapped("  none yet: ", f"{refused}; {fix}")


def region_lines(region: Region, config: ConfigVersion) -> Iterator[str]:
    """Yield the lines of a region: its territories, its boundary, and what applies to its requests."""
    territories = "everywhere else" if region.is_default else str(region.territories)
    yield from _wrapped(f"  {region.name}: ", territories)
    yield from _wrapped("      boundary: ", str(region.boundary))
    kept = [code for code in sorted(territory_data().stays) if _has(config, region, code)]
    if region.is_default and kept:
        yield from _wrapped("      prompts must stay in their own territory: ", ", ".join(kept))
    if region.transit.included:
        yield from _wrapped("      passes through: ", f"{region.transit} (no receipt is kept there)")
    if region.approvals_required:
        yield "      approvals: required"
    if region.log_prompts:
        yield "      prompts are logged"
    if not config.has_websocket(region):
        yield "      no WebSocket: answers to it are 426 `websocket_not_offered`"
    if region.protected:
        yield "      protected: changes with an admin's signature"
    if region.texts is not None:
        locales = region.texts.locales
        labels = [label.name for label in region.texts.default_locale.labels]
        if labels:
            yield from _wrapped("      labels: ", ", ".join(labels))
        if region.texts.default_locale.profile is not None:
            yield from _wrapped("      profile: ", ", ".join(locales))
    if (judges := config.moderation.get(region.name)) is not None:
        yield from _wrapped("      moderation: ", str(judges))
    for heading, text in feature_lines(region):
        yield from _wrapped(f"      {heading}: ", text)


def feature_lines(region: Region) -> Iterator[tuple[str, str]]:
    """Yield the lines of features about a region: a heading, and the text."""
    for part in region.parts.every:
        yield from part.report(region)
    if region.texts is not None and (proof := region.texts.default_locale.proof) is not None:
        yield proof.report()


def _has(config: ConfigVersion, region: Region, territory: str) -> bool:
    return config.region_of(territory) is region and not config.blocked.contains(territory)


def _gaps(assistant: Assistant, config: ConfigVersion, now_s: float, most: int | None) -> _Gaps:
    """Return the lines about territories where no deployment may answer, by region and use."""
    gaps: dict[tuple[str, Use], list[str]] = {}
    for use in USES:
        start = "    no deployment may answer in: " if use == "chat" else f"    {use}: no deployment may answer in: "
        for region, codes in unanswered(config, assistant.for_use(use), now_s).items():
            gaps[region, use] = _wrapped(start, territory_list(codes, most or len(codes)))
    return gaps


def _assistant(assistant: Assistant, config: ConfigVersion, days: Days | None, gaps: _Gaps) -> Iterator[str]:
    aliases = f" (also {', '.join(assistant.aliases)})" if assistant.aliases else ""
    yield from _wrapped("assistant ", assistant.name + aliases)
    for choice in assistant.choices.values():
        yield from _wrapped(f"  choice {choice.name}: ", ", ".join(sorted(choice.deployments)))
    for name in config.regions:
        yield from route_lines(assistant, name, config, days, gaps)


def route_lines(
    assistant: Assistant, name: str, config: ConfigVersion, days: Days | None = None, gaps: _Gaps = _NO_GAPS
) -> Iterator[str]:
    """Yield the lines of an assistant's routes in a region: where its prompts go, in order, and when."""
    steps = assistant.routes.get(name)
    if steps is None:
        what = "no route; requests" if name not in assistant.regions else "no route of chats; those"
        yield f"  {name}: {what} are refused (region_blocked)"
        yield from _other_uses(assistant, config.regions[name], days, gaps)
        return
    yield from _wrapped(f"  {name}", f"{_elsewhere(name, config)}:")
    yield from _steps(steps, 1, config.regions[name], days)
    if (barrier := assistant.barriers.get(name)) is not None:
        yield f"    barrier: {barrier.rule}"
        yield from _steps(barrier.listed, len(steps) + 1, config.regions[name], days, barrier.wrapper)
    yield from gaps.get((name, "chat"), ())
    for view in assistant.views[1:]:
        if view.route_words(name) != assistant.route_words(name):
            for deployment in deployments_of(view.whole_route(name)):
                yield from _step(f"    intent {view.intent}: ", deployment, config.regions[name], days)
    yield from _other_uses(assistant, config.regions[name], days, gaps)
    if schedule := assistant.schedules.get(name):
        yield from _wrapped("    schedule: ", _schedule(schedule))
    for line in (line for part in assistant.parts_in(name).every for line in part.route_lines()):
        if isinstance(line, Deployment):
            yield from _step("    - ", line, config.regions[name], days)
        else:
            yield f"    {line}"


def _steps(steps: Route, first: int, region: Region, days: Days | None, behind: Wrapper | None = None) -> Iterator[str]:
    for number, step in enumerate(steps, first):
        if isinstance(step, WeightedSet):
            yield f"    {number}. by weight; each user stays with one of"
            for deployment, _ in step.members:
                yield from _step(f"    - {_percent(step.shares[deployment.name])} ", deployment, region, days, behind)
        else:
            yield from _step(f"    {number}. ", step, region, days, behind)


def _other_uses(assistant: Assistant, region: Region, days: Days | None, gaps: _Gaps) -> Iterator[str]:
    for use in USES[1:]:
        for deployment in deployments_of(assistant.routes_for(use).get(region.name, ())):
            yield from _step(f"    {use}: ", deployment, region, days)
        yield from gaps.get((region.name, use), ())


def _schedule(schedule: Schedule) -> str:
    stages = [
        _percent(stage.share) + (f" for {_time(stage.for_s)}" if stage.for_s is not None else "")
        for stage in schedule.stages
    ]
    stop = schedule.stop
    ends = [f"more than {_percent(stop.error_rate)} of errors"] if stop.error_rate is not None else []
    ends += [f"a p95 more than {_percent(stop.latency_p95)} longer"] if stop.latency_p95 is not None else []
    back = f"rolled back to 0% at {' or '.join(ends)}" if ends else "never rolled back"
    return f"{schedule.candidate} {', '.join(stages)}; {back}; judged after {stop.min_requests} requests per variant"


def _time(seconds: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % length_s == 0:
            return f"{seconds / length_s:g}{unit}"
    return f"{seconds:g}s"


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"


def _elsewhere(region: str, config: ConfigVersion) -> str:
    """Return a note that another cell serves the region, or an empty text if this cell does."""
    cell = config.cell
    if cell is None or cell.serves is None or region in cell.serves:
        return ""
    home = cell.homes.get(region)
    if home:
        return f" (served by {home}, not by this cell)"
    return " (not served by this cell: requests are refused, wrong_cell)"


def _step(
    start: str, step: Deployment, region: Region, days: Days | None, behind: Wrapper | None = None
) -> Iterator[str]:
    simulated = ", simulated" if step.simulates is not None else ""
    yield from _wrapped(start, f"{step.name}: {step.provider} {step.model} at {step.site}{simulated}")
    yield from _wrapped("       ", _where(step.residency))
    if step.proxy is not None:
        yield from _wrapped("       through the proxy ", str(step.proxy))
    if (rules := wrapper_of_step(region, step, behind)) is not None:
        yield from _wrapped("       redacts: ", ", ".join(rules.shown_kinds))
    elif region.parts.of(Wrapper) is not None:
        yield "       not redacted"
    if step.emulates_schemas(bounded=not region.boundary.is_anywhere):
        yield "       JSON schemas: emulated"
    if served := _served(step, region):
        yield from _wrapped("       serves: ", served)
    for stage in step.stages:
        yield f"       model {'retires' if stage.is_retirement else stage.stage}: {stage}"
    if reason := ineligible_now(step, region, days):
        yield from _wrapped("       not now: ", reason)


def _served(step: Deployment, region: Region) -> str:
    """Return the territories of the region that the vendor serves, or an empty text if it serves all of them."""
    available = step.available
    territories = region.territories.included
    if available.is_anywhere or (territories is not None and all(map(available.contains, territories))):
        return ""
    if territories is not None:
        return str(Places(frozenset(filter(available.contains, territories))))
    is_short = len(str(available)) <= _WIDTH // 2
    return str(available) if is_short or available.included is None else f"{len(available.included)} territories"


def _exporter(exporter: Exporter, config: ConfigVersion) -> Iterator[str]:
    yield from _wrapped(f"  {exporter.name}: ", f"traces to {exporter.permit.origin}{exporter.path}")
    yield from _wrapped("      ", _where(exporter.residency))
    received = [name for name, region in config.regions.items() if exporter.may_export(region)]
    unplaced = ["requests of no known region"] if exporter.includes_unlocated else []
    yield from _wrapped("      receives: ", ", ".join(received + unplaced) or "nothing")
    excluded = [name for name in config.regions if name not in received]
    unplaced = [] if exporter.includes_unlocated else ["requests of no known region"]
    if excluded + unplaced:
        yield from _wrapped("      never receives: ", ", ".join(excluded + unplaced))
    if exporter.ratio < 1:
        yield f"      samples: {exporter.ratio:g} of new traces"
    if exporter.missing:
        yield "      not now: a header has no value"


def _price_changes(config: ConfigVersion, now_s: float) -> Iterator[str]:
    """Yield the prices that change within 30 days."""
    head = ["", f"prices that change within {_PRICE_DAYS} days, at 00:00 UTC"]
    for deployment in config.deployments.values():
        until_s = now_s + _PRICE_DAYS * 86_400
        changes = [
            f"from {_begin(price)} on {_price(price)}"
            for price in deployment.coming_prices(now_s)
            if price.at(until_s) is price
        ]
        if changes:
            yield from head
            head = []
            yield from _wrapped(f"  {deployment.name}: ", "; ".join([_price(deployment.price_at(now_s)), *changes]))


def _begin(price: Price) -> str:
    if not price.ahead_s:
        return str(price.valid_from)
    hours, seconds = divmod(abs(price.ahead_s), 3600)
    return f"{price.valid_from} (00:00 of UTC{'+' if price.ahead_s > 0 else '-'}{hours:02}:{seconds // 60:02})"


def _price(price: Price | None) -> str:
    if price is None:
        return "no known price"
    shown = f"{price.currency} {shown_amount(price.rates.input)} input, {shown_amount(price.rates.output)} output"
    return shown if price.search is None else f"{shown}, {shown_amount(price.search)} a search"


def _facts(config: ConfigVersion, now_s: float) -> Iterator[str]:
    """Yield the oldest fact of a vendor that the config relies on, and the facts that no page confirms."""
    deployments = config.deployments.values()
    oldest = oldest_fact(deployments, now_s)
    if oldest is not None:
        yield from ("", "facts of the vendors")
        yield from _wrapped("  oldest: ", dated(*oldest))
    for subject, reason in unconfirmed_facts(deployments, now_s).items():
        yield from _wrapped("  unconfirmed: ", f"{subject}: {reason}")


def _where(residency: Residency) -> str:
    stores, processes = str(residency.stores), str(residency.processes)
    return f"stores and processes: {stores}" if stores == processes else f"stores: {stores}; processes: {processes}"


def _wrapped(start: str, text: str) -> list[str]:
    """Return the lines of `start` and the text. Further lines are indented."""
    indent = " " * (len(start) - len(start.lstrip()) + 4)
    return wrap(text, _WIDTH, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False)


def rejected_config(problems: tuple[Problem, ...], *, every_warning: bool = False) -> CommandError:
    """Return the error that a command reports for a configuration with these problems."""
    return RejectedConfig(render_problems(problems, every_warning=every_warning))
