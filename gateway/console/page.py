"""Render the page: the map, the decision for the chosen territory, the question and the faults."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from gateway import __version__
from gateway.api.admin_control import reload_report, unavailable_by_deployment
from gateway.api.admin_explain import explain_document, supposed_request
from gateway.api.errors import ApiError
from gateway.console.areas import Move, areas, labels, legend, moves
from gateway.console.demo_users import users_of
from gateway.console.own_config import OwnConfig, candidates, movable_routes
from gateway.console.texts import LANGUAGES, WORDS, ViewTexts, language_of, texts_in
from gateway.console.vendors import Product, product_at
from gateway.console.views import environment_of
from gateway.console.world import PINS, find_territory, territory_names, territory_of_languages, world
from gateway.model.approval import days_at
from gateway.model.config_version import ConfigVersion
from gateway.model.refusal_reason import REASON_BY_CODE, RefusalReason
from gateway.model.status import SimulatedSite, Status
from gateway.policy.location.resolution import locator_of
from gateway.policy.territory_answers import Answers, answers_of
from gateway.service.explain import why_not_supposed
from providers.value import Value

_EXAMPLES = (*PINS, "CN", "DE", "JP", "US", "CU")
_MOST_CHARACTERS = 2000
_MOST_TABLES = 16
_QUESTION = "Hello! Who are you?"
_TERRITORY_HEADER = "cf-ipcountry"
"""The header with which the page asks as if from a territory. In a demo, every client is a trusted edge."""
_PROGRAM = Template((Path(__file__).parent / "templates" / "program.py.txt").read_text("utf-8"))
FAULTS: Mapping[str, str] = WORDS["faults"]
"""The notation of `gateway simulate`, and its words on the page. The most instructive faults are first."""
SCRIPT_TEXTS: Sequence[str] = WORDS["script"]
"""The texts of the script `page.js`."""


class PageSettings(Value, frozen=True):
    """The config file, and the territory of callers whom no signal locates, with which the page begins."""

    config: Path
    territory: str | None = None


class Request(Value, frozen=True):
    """The choices of a reader, as the query of the page's address names them."""

    url: str
    """The origin under which the browser reaches the gateway."""
    languages: str = ""
    """The header `Accept-Language`, which suggests the first territory."""
    territory: str = ""
    assistant: str = ""
    question: str = ""
    view: str = ""
    dismissed: str = ""
    """The version whose difference to the previous one is not shown any more."""
    lang: str = ""


class Pages:
    """Renders pages. One object serves all pages of a demo, and may be used by several threads."""

    def __init__(self, settings: PageSettings, own_config: OwnConfig | None) -> None:
        self._settings = settings
        self._own_config = own_config
        self._tables: dict[tuple[str, str, int], Answers] = {}
        # The version that pages show, and the previous version.
        self._current: ConfigVersion | None = None
        self._previous: ConfigVersion | None = None
        self._templates = {name: environment_of(texts_in(name)).get_template("page.html") for name in LANGUAGES}

    def render(
        self, status: Status, sites: Sequence[SimulatedSite], request: Request, navigation: str = ""
    ) -> tuple[str, int]:
        """Return the page as HTML, and its HTTP status. `navigation` is the bar of the console."""
        config, texts = status.config, texts_in(language_of(request.lang, request.languages))
        assistants = sorted({assistant.name for assistant in config.assistants.values()})
        assistant = request.assistant if request.assistant in config.assistants else assistants[0]
        cell = config.cell.territory if config.cell is not None else ""
        suggested = cell or territory_of_languages(request.languages) or self._settings.territory or ""
        wanted = request.territory or suggested
        if self._own_config is not None and status.failed is None:
            self._own_config.note_good(status.loaded.at.timestamp())
        code = find_territory(wanted) if wanted else None
        decision = _decision(status, assistant, code) if code is not None else None
        answers = self._answers(config, assistant, status.at_s)
        moved = self._moved(status, assistant, answers, request.dismissed, texts)
        changed = {member for move in moved or () for member, _ in move.members}
        path, here = self._settings.config, Path.cwd()
        unavailable = {
            name: {**entries[0], "by_breaker": by_breaker}
            for by_breaker in (False, True)
            for name, entries in unavailable_by_deployment(status.workers, by_breaker=by_breaker).items()
        }
        html = self._templates[texts.language].render(
            version=__version__,
            texts=texts,
            script_texts=json.dumps(_script_texts(texts), ensure_ascii=False),
            config=config,
            config_path=str(path.relative_to(here) if path.is_relative_to(here) else path),
            loaded=reload_report(status.loaded),
            failed=reload_report(status.failed) if status.failed is not None else None,
            moved=moved,
            assistants=assistants,
            assistant=assistant,
            areas=areas(config, answers, code, changed, texts),
            wanted=wanted,
            code=code,
            decision=decision,
            product=_product(config, decision),
            unavailable=unavailable,
            routes=movable_routes(config.assistants[assistant]),
            candidates=candidates(config.assistants[assistant]),
            has_crisis=any(region.helps_first for region in config.regions.values()),
            navigation=navigation,
            sites=_sites(sites, decision),
            faults=FAULTS,
            real=sorted(config.real),
            **_map_members(config, answers, code, request.view, texts.language),
            **_question_members(config, request, assistant, code),
            **self._demo_members(config),
        )
        return html, 404 if wanted and code is None else 200

    def _demo_members(self, config: ConfigVersion) -> dict[str, object]:
        own = self._own_config
        return {
            "is_demo": own is not None,
            "prefix": "/console" if own is not None else "",
            "written": own.lines() if own is not None else [],
            "users": users_of(config) if own is not None else [],
        }

    def _answers(self, config: ConfigVersion, assistant: str, now_s: float) -> Answers:
        """Return who answers in each territory. Approvals end with a day, so a table holds for a day."""
        key = config.version, assistant, days_at(now_s).last
        if key not in self._tables:
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            self._tables[key] = answers_of(config, config.assistants[assistant], now_s, territory_names())
        return self._tables[key]

    def _moved(
        self, status: Status, assistant: str, answers: Answers, dismissed: str, texts: ViewTexts
    ) -> list[Move] | None:
        """Return what the last edit has changed; None if there was no edit, or the reader has dismissed it."""
        config = status.config
        if self._current is None or self._current.version != config.version:
            self._previous, self._current = self._current, config
        previous = self._previous
        if previous is None or dismissed == config.version or assistant not in previous.assistants:
            return None
        before = self._answers(previous, assistant, status.at_s)
        return moves(previous, before, config, answers, texts.language)

    def prepare(self, status: Status) -> None:
        """Compute what the first page needs."""
        self.render(status, (), Request("http://127.0.0.1"))


def _map_members(
    config: ConfigVersion, answers: Answers, code: str | None, view: str, language: str
) -> dict[str, object]:
    """Return what the map shows next to the areas, and the list of territories."""
    views = world().views()
    return {
        "world": world(),
        "view": views.get(view, views[""]),
        "views": views.values(),
        "near": world().near(code) if code is not None else [],
        "legend": legend(config, answers, language),
        "labels": labels(config, answers, language),
        "firsts": Counter(answer.first for answer in answers.values()),
        "names": sorted(territory_names(language).items(), key=lambda item: item[1]),
        "examples": _EXAMPLES,
    }


def _question_members(config: ConfigVersion, request: Request, assistant: str, code: str | None) -> dict[str, object]:
    """Return the question, and the programs that ask it from the territory."""
    question = request.question[:_MOST_CHARACTERS] or _QUESTION
    asked = request.url, assistant, code or "", question
    return {
        "question": question,
        "header": _TERRITORY_HEADER,
        "no_effect": _no_effect(config, code),
        "curl": curl_command(*asked) if code is not None else "",
        "python": python_program(*asked) if code is not None else "",
    }


def _script_texts(texts: ViewTexts) -> dict[str, str]:
    """Return the texts of the script. In English, errors have the gateway's own words."""
    shown = {text: texts.gettext(text) for text in SCRIPT_TEXTS}
    if texts.language != "en":
        shown |= {f"error.{code}": texts.code("error", code, "{detail}") for code in REASON_BY_CODE}
        shown |= {f"reason.{reason}": texts.code("reason", reason) for reason in RefusalReason}
    return shown


def _decision(status: Status, assistant: str, code: str) -> dict[str, Any]:
    """Return the document of `explain`, with the steps and the skipped deployments apart."""
    try:
        document: dict[str, Any] = explain_document(status, supposed_request(status, assistant, code, None, None), code)
    except ApiError as error:
        return {"error": error.message}
    order = [item["deployment"] for item in document["considered"]]
    by_name = dict(zip(order, document["considered"], strict=True))
    plan = document["outcome"].get("plan", [])
    planned = {step["deployment"] for step in plan}
    before_first = order[: order.index(plan[0]["deployment"])] if plan else order
    others = [item for item in document["considered"] if item["deployment"] not in planned]
    return {
        **document,
        "error": None,
        "steps": [{**by_name[step["deployment"]], **step} for step in plan],
        "skipped": [item for item in others if "after_barrier" not in item],
        "after_barrier": [item for item in others if "after_barrier" in item],
        "skipped_first": [by_name[name] for name in before_first if name not in planned],
        "refusal": document["outcome"].get("refusal"),
    }


def _product(config: ConfigVersion, decision: Mapping[str, Any] | None) -> Product | None:
    """Return the product that answers now, or None."""
    if decision is None or not decision.get("steps"):
        return None
    return product_at(config.deployments[decision["steps"][0]["deployment"]])


def _no_effect(config: ConfigVersion, code: str | None) -> str:
    """Return why a request of the page would not be located there, or an empty text."""
    if code is None:
        return ""
    reason = why_not_supposed(config, code)
    if not reason and _TERRITORY_HEADER.encode() not in locator_of(config).headers:
        return f"no edge of this configuration sends the header {_TERRITORY_HEADER}"
    return reason


def _sites(sites: Sequence[SimulatedSite], decision: Mapping[str, Any] | None) -> list[dict[str, object]]:
    """Return the simulated sites, always in the same order, with the deployments that are on the route apart."""
    parts = ("steps", "skipped", "after_barrier") if decision is not None and decision["error"] is None else ()
    route = [item for part in parts for item in (decision or {})[part]]
    on_route = {item["deployment"] for item in route}
    return [
        {
            "site": site,
            "name": site.deployments[0],
            "others": site.deployments[1:],
            "is_on_route": not on_route.isdisjoint(site.deployments),
            "is_unlisted": bool(site.description) and site.fault not in FAULTS,
        }
        for site in sites
        if site.deployments
    ]


def curl_command(url: str, assistant: str, territory: str, question: str) -> str:
    """Return the streamed request as a command for a POSIX shell."""
    body = {"model": assistant, "stream": True, "messages": [{"role": "user", "content": question}]}
    return (
        f"curl -iN {shlex.quote(f'{url}/v1/chat/completions')} \\\n"
        f"  -H 'content-type: application/json' -H {shlex.quote(f'{_TERRITORY_HEADER}: {territory}')} \\\n"
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )


def python_program(url: str, assistant: str, territory: str, question: str) -> str:
    """Return the same request as a program that uses the OpenAI SDK. See `curl_command`."""
    values = {"base_url": f"{url}/v1", "assistant": assistant, "territory": territory, "question": question}
    values["header"] = _TERRITORY_HEADER
    # A text that JSON quotes is a literal of Python too.
    literals = {name: json.dumps(text, ensure_ascii=not text.isprintable()) for name, text in values.items()}
    return _PROGRAM.substitute(literals)
