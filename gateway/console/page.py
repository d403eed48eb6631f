"""Render the page: the map, the decision for the chosen territory, the question and the faults."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway import __version__
from gateway.api.admin_control import reload_report, unavailable_by_deployment
from gateway.api.admin_explain import explain_document
from gateway.api.errors import ApiError
from gateway.console.assets import asset_url
from gateway.console.route_changes import differences
from gateway.console.snippets import QUESTION, TERRITORY_HEADER, curl_command, python_program
from gateway.console.world import CROSS, FOLDER, SHAPES, find_territory, name_of, territory_names, world
from gateway.model.approval import days_at
from gateway.model.config_version import ConfigVersion
from gateway.model.status import SimulatedSite, Status
from gateway.policy.location.resolution import locator_of
from gateway.policy.territory_answers import Answers, answers_of
from gateway.service.explain import why_not_supposed

_EXAMPLES = ("CN", "DE", "HK", "JP", "US", "CU")
_MOST_CHARACTERS = 2000
_MOST_TABLES = 16
_NONE, _BLOCKED = "", "!"
_COLOURS = 8
_MOST_NAMED = 6
_PLACES = {"any": "anywhere", "@EU": "the European Union", "@EEA": "the European Economic Area"}

FAULTS: Mapping[str, str] = {
    "429=1": "429: wait 1 s",
    "429=30": "429: wait 30 s",
    "500": "500: internal error",
    "503": "503: unavailable",
    "silent": "no answer",
    "reset": "connection is reset",
    "cut": "stream is cut",
    "stall": "stream stops",
    "slow=0.5": "slow pieces",
    "error-event": "error inside the stream",
    "quota": "quota used up",
    "geo": "place not served",
    "content-filter": "safety system refuses",
    "context-length": "prompt too long",
    "empty": "empty answer",
    "truncated": "truncated JSON",
    "garbage": "invalid JSON",
    "html": "HTML page",
    "no-end-mark": "stream without end mark",
    "duplicate-finish": "stream that ends twice",
    "redirect=http://127.0.0.1:9/:1": "redirect to another host",
}
"""The notation of `gateway simulate`, and its words on the page. The most instructive faults are first."""


@dataclass(frozen=True, slots=True)
class PageSettings:
    """The config file and the territory with which the page begins.

    Attributes:
        config: The path of the config file.
        territory: The territory of callers whom no signal locates, or None. The page begins with it.
    """

    config: Path
    territory: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """The choices of a reader, as the query of the page's address names them.

    Attributes:
        url: The origin under which the browser reaches the gateway.
    """

    url: str
    territory: str = ""
    assistant: str = ""
    question: str = ""
    view: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """The territories of a region, with the shape and the colour that mark them.

    Attributes:
        name: The region; `blocked`, or `in no region`.
        shape: The name of the shape.
        colour: The number of the colour, from 1; 0 is that of territories without an answer.
        outline: The path of the shape.
    """

    name: str
    shape: str
    colour: int
    outline: str
    members: Sequence[tuple[str, str]] = ()


@dataclass(slots=True)
class _Shown:
    """The version that pages showed last, for the difference to the next one."""

    version: str = ""
    answers: dict[str, Answers] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


class Pages:
    """Renders pages. One object serves all pages of a demo, and may be used by several threads."""

    def __init__(self, settings: PageSettings) -> None:
        self._settings = settings
        self._tables: dict[tuple[str, str, int], Answers] = {}
        self._shown = _Shown()
        environment = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["places"] = _places
        environment.globals.update(asset=asset_url, name_of=name_of)
        self._template = environment.get_template("page.html")

    def render(self, status: Status, sites: Sequence[SimulatedSite], request: Request) -> tuple[str, int]:
        """Return the page as HTML, and its HTTP status."""
        config = status.config
        assistants = sorted({assistant.name for assistant in config.assistants.values()})
        assistant = request.assistant if request.assistant in config.assistants else assistants[0]
        answers = self._answers(config, assistant, status.at_s)
        groups = _groups(config, answers)
        wanted = request.territory or (self._settings.territory or "")
        code = find_territory(wanted) if wanted else None
        views = world().views()
        view = views.get(request.view, views[""])
        question = request.question[:_MOST_CHARACTERS] or QUESTION
        decision = _decision(status, assistant, code) if code is not None else None
        html = self._template.render(
            version=__version__,
            config=config,
            config_path=_shown_path(self._settings.config),
            loaded=reload_report(status.loaded),
            failed=reload_report(status.failed) if status.failed is not None else None,
            changes=self._changes(status, assistant, answers),
            assistants=assistants,
            assistant=assistant,
            groups=groups,
            marks=_marks(answers, groups, code),
            refused_in_region=_refused_colour(answers, groups),
            names=sorted(territory_names().items(), key=lambda item: item[1]),
            shapes=SHAPES,
            cross=CROSS,
            world=world(),
            view=view,
            views=views.values(),
            wanted=wanted,
            code=code,
            decision=decision,
            group=_group_of(code, answers, groups) if code is not None else None,
            near=world().near(code) if code is not None else [],
            examples=_EXAMPLES,
            no_effect=_no_effect(config, code),
            unavailable=_unavailable(status),
            sites=_sites(sites, decision),
            faults=FAULTS,
            question=question,
            header=TERRITORY_HEADER,
            curl=curl_command(request.url, assistant, code or "", question) if code is not None else "",
            python=python_program(request.url, assistant, code or "", question) if code is not None else "",
            real=sorted(config.real),
        )
        return html, 404 if wanted and code is None else 200

    def _answers(self, config: ConfigVersion, assistant: str, now_s: float) -> Answers:
        """Return who answers in each territory. Approvals end with a day, so a table holds for a day."""
        key = config.version, assistant, days_at(now_s).last
        if key not in self._tables:
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            self._tables[key] = answers_of(config, config.assistants[assistant], now_s, territory_names())
        return self._tables[key]

    def _changes(self, status: Status, assistant: str, answers: Answers) -> list[str]:
        """Return the difference to the version that pages showed before this one; empty if there was none."""
        shown, version = self._shown, status.config.version
        if shown.version != version:
            before = shown.answers.get(assistant)
            lines = differences(before, answers, status.loaded.changes) if before is not None else []
            shown = self._shown = _Shown(version, {}, lines)
        shown.answers[assistant] = answers
        return shown.lines

    def prepare(self, status: Status) -> None:
        """Compute what the first page needs."""
        self.render(status, (), Request("http://127.0.0.1"))


def _places(text: str) -> str:
    """Return a set of territories, as `Places` writes it, with their names. A long list keeps its codes."""
    words = re.split(r"(, | but not | but )", text)
    if len(words) > 2 * _MOST_NAMED:
        return text
    return "".join(_PLACES.get(word) or (name_of(word) if word[:2] in territory_names() else word) for word in words)


def _shown_path(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _groups(config: ConfigVersion, answers: Answers) -> list[Group]:
    """Return a group for each region in the order of the config, then those of territories without an answer."""
    members: dict[str, list[str]] = {name: [] for name in config.regions}
    for code, answer in answers.items():
        name = _BLOCKED if config.blocked.contains(code) else answer.region or _NONE
        members.setdefault(name, []).append(code)
    groups = []
    shapes = [*SHAPES.items()]
    for number, (name, codes) in enumerate(members.items()):
        named = sorted(((code, name_of(code)) for code in codes), key=lambda item: item[1])
        if name in config.regions:
            # Further regions repeat the colours with other shapes.
            shape, outline = shapes[(number + number // len(shapes)) % len(shapes)]
            groups.append(Group(name, shape, number % _COLOURS + 1, outline, named))
        else:
            title = "blocked" if name == _BLOCKED else "in no region"
            groups.append(Group(title, "cross", 0, CROSS, named))
    return groups


def _group_of(code: str, answers: Answers, groups: Sequence[Group]) -> Group | None:
    return next((group for group in groups if any(code[:2] == member for member, _ in group.members)), None)


def _marks(answers: Answers, groups: Sequence[Group], chosen: str | None) -> list[dict[str, object]]:
    """Return the mark of each territory. The chosen one is last, so that no other covers it."""
    points, marks = world().points, []
    selected = chosen[:2] if chosen is not None else None
    for group in groups:
        for code, name in group.members:
            answer = answers[code]
            refusal = f"refused ({answer.refusal})" if answer.refusal else ""
            marks.append(
                {
                    "code": code,
                    "name": name,
                    "x": points[code][0],
                    "y": points[code][1],
                    "group": group,
                    "shape": "cross" if answer.refusal else group.shape,
                    "first": answer.first,
                    "label": f"{name}: {group.name}, {refusal or answer.first}",
                    "is_chosen": code == selected,
                }
            )
    return sorted(marks, key=lambda mark: bool(mark["is_chosen"]))


def _refused_colour(answers: Answers, groups: Sequence[Group]) -> int:
    """Return the colour of a region in which some territory gets no answer, for the legend; 0 if there is none."""
    colours = (group.colour for group in groups if any(answers[code].refusal for code, _ in group.members))
    return max(colours, default=0)


def _decision(status: Status, assistant: str, code: str) -> dict[str, Any]:
    """Return the document of `explain`, with the steps and the skipped deployments apart."""
    try:
        document: dict[str, Any] = explain_document(status, assistant, code, None, None)
    except ApiError as error:
        return {"error": error.message}
    order = [item["deployment"] for item in document["considered"]]
    by_name = dict(zip(order, document["considered"], strict=True))
    plan = document["outcome"].get("plan", [])
    planned = {step["deployment"] for step in plan}
    before_first = order[: order.index(plan[0]["deployment"])] if plan else order
    return {
        **document,
        "error": None,
        "steps": [{**by_name[step["deployment"]], **step} for step in plan],
        "skipped": [item for item in document["considered"] if item["deployment"] not in planned],
        "skipped_first": [by_name[name] for name in before_first if name not in planned],
        "refusal": document["outcome"].get("refusal"),
    }


def _no_effect(config: ConfigVersion, code: str | None) -> str:
    """Return why a request of the page would not be located there, or an empty text."""
    if code is None:
        return ""
    reason = why_not_supposed(config, code)
    if not reason and TERRITORY_HEADER.encode() not in locator_of(config).headers:
        return f"no edge of this configuration sends the header {TERRITORY_HEADER}"
    return reason


def _unavailable(status: Status) -> Mapping[str, dict[str, object]]:
    """Return the deployments that are not used now: the reason, the remaining time, and whether a breaker is open."""
    found: dict[str, dict[str, object]] = {}
    for by_breaker in (False, True):
        for name, entries in unavailable_by_deployment(status.workers, by_breaker=by_breaker).items():
            found[name] = {**entries[0], "by_breaker": by_breaker}
    return found


def _sites(sites: Sequence[SimulatedSite], decision: Mapping[str, Any] | None) -> list[dict[str, object]]:
    """Return the simulated sites: those that are asked first, in their order, then the rest of the territory's route.

    A site's deployments on the route are apart from the others, such as those of embeddings.
    """
    route = [*decision["steps"], *decision["skipped"]] if decision is not None and decision["error"] is None else []
    rank = {item["deployment"]: number for number, item in enumerate(route)}

    def rank_of(site: SimulatedSite) -> int:
        return min((rank.get(name, len(rank)) for name in site.deployments), default=len(rank))

    shown: list[dict[str, object]] = []
    for site in sorted(sites, key=rank_of):
        on_route = sorted((name for name in site.deployments if name in rank), key=rank.__getitem__)
        names = on_route or site.deployments[:1]
        if names:
            shown.append(
                {
                    "site": site,
                    "names": names,
                    "others": [name for name in site.deployments if name not in names],
                    "is_on_route": bool(on_route),
                    "is_unlisted": bool(site.description) and site.fault not in FAULTS,
                }
            )
    return shown
