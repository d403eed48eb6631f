"""The views of the console below the map: their addresses, their actions, and how they are rendered.

A view is a function that reads the admin API as the visitor and returns the values of its template. An action is one
that changes something through the admin API. Both work with plain links and forms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway import __version__
from gateway.api.front_page import HTML
from gateway.api.raw_responses import Application, RawResponse
from gateway.changes.plan import MARKS
from gateway.console.admin_call import AdminCall, AdminFailed
from gateway.console.assets import asset_url
from gateway.console.texts import LANGUAGES, WORDS, ViewTexts, _, texts_in
from gateway.console.timeline import failure_words
from gateway.console.visitors import Visitor
from gateway.console.world import name_of, places_in
from gateway.model.answer_change import AnswerChangeKind
from gateway.model.stored_client import Role, may_act
from providers.value import Value, replace

_FOLDER = Path(__file__).parent / "templates"
ANSWER_WORDS: Mapping[AnswerChangeKind, str] = WORDS["answers"]
ROLE_WORDS = {Role.VIEWER: _("viewer"), Role.OPERATOR: _("operator"), Role.ADMIN: _("admin")}


class Visit(Value, frozen=True):
    """One request of a visitor.

    `path` is without the prefix, which stands before the path of every view. `query` has the last value of each
    parameter of the address, and `lists` has all.
    """

    visitor: Visitor
    admin: AdminCall
    texts: ViewTexts
    prefix: str
    path: str = ""
    query: Mapping[str, str] = {}
    lists: Mapping[str, Sequence[str]] = {}
    form: Mapping[str, str] = {}

    @property
    def is_operator(self) -> bool:
        """Whether the visitor's role may act. The admin API decides; this only leaves out buttons."""
        return may_act(self.visitor.identity.role, Role.OPERATOR)

    @property
    def is_admin(self) -> bool:
        return may_act(self.visitor.identity.role, Role.ADMIN)


class ViewAnswer(Value, frozen=True):
    """The result of a view or an action: a template, a file, or a redirect to a path below the prefix."""

    template: str = ""
    values: dict[str, Any] = {}  # noqa: RUF012  # msgspec copies it
    status: int = 200
    location: str = ""
    file: RawResponse | None = None


def back_to(path: str, **query: str) -> ViewAnswer:
    """Return the redirect to a view after an action. `done` in the query names its notice."""
    return ViewAnswer(location=f"{path}?{urlencode(query)}" if query else path, status=303)


Handler: TypeAlias = Callable[[Visit], Awaitable[ViewAnswer]]


class ConsoleView(Value, frozen=True):
    """A view at a path below the prefix.

    `actions` has the role that each action needs, and what answers POST, by the path. With `in_footer`, the end of each
    page links to it, in place of the navigation.
    """

    path: str
    title: str
    show: Handler
    actions: Mapping[str, tuple[Role, Handler]] = {}
    in_footer: bool = False


class Views:
    """Answers the requests for all views, whose paths begin with the prefix. A demo needs no sign-in."""

    def __init__(
        self, admin: Application, views: Sequence[ConsoleView], prefix: str = "", *, is_demo: bool = False
    ) -> None:
        self._admin = admin
        self._views = views
        self._prefix = prefix
        self._is_demo = is_demo
        self._shown = {f"{prefix}{view.path}": view for view in views}
        self._actions = {f"{prefix}{path}": (view, *action) for view in views for path, action in view.actions.items()}
        # One page is rendered at a time, so that many pages leave the processor to requests.
        self._rendering = asyncio.Lock()

    def has(self, path: str) -> bool:
        """Return whether a view or an action has this path."""
        return path in self._shown or path in self._actions

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the methods of a path that `has` knows."""
        return (*(("GET", "HEAD") if path in self._shown else ()), *(("POST",) if path in self._actions else ()))

    def visit(
        self, visitor: Visitor, language: str, lists: Mapping[str, Sequence[str]], form: Mapping[str, str]
    ) -> Visit:
        """Return the visit of a visitor, with all values of each parameter of the address, and a form."""
        texts, query = texts_in(language), {name: values[-1] for name, values in lists.items()}
        admin = AdminCall(self._admin, visitor.identity, texts)
        return Visit(visitor, admin, texts, self._prefix, query=query, lists=lists, form=form)

    async def respond(self, method: str, path: str, visit: Visit) -> RawResponse:
        """Return the page of a view, or the result of an action."""
        if method == "POST":
            view, role, handler = self._actions[path]
        else:
            view, role, handler = self._shown[path], Role.VIEWER, self._shown[path].show
        try:
            visit.admin.expect(role)
            answer = await handler(replace(visit, path=path.removeprefix(self._prefix)))
        except AdminFailed as failed:
            values = {"failed": failed, "view": view}
            answer = ViewAnswer("failed.html", values, failed.status if failed.status >= 400 else 502)
        if answer.file is not None:
            return answer.file
        if not answer.template:
            return RawResponse(b"", answer.status, {"location": f"{self._prefix}{answer.location}"})
        return await self.page(answer, visit, view)

    async def page(self, answer: ViewAnswer, visit: Visit, view: ConsoleView | None = None) -> RawResponse:
        async with self._rendering:
            html = await asyncio.to_thread(self._render, answer, visit, view)
        return RawResponse(html.encode("utf-8", "replace"), answer.status, {}, HTML)

    async def navigation(self, visit: Visit) -> str:
        """Return the bar with the links to the views, as markup."""
        async with self._rendering:
            return await asyncio.to_thread(self._render, ViewAnswer("navigation.html"), visit, None)

    def _render(self, answer: ViewAnswer, visit: Visit, view: ConsoleView | None) -> str:
        return (
            environment_of(visit.texts)
            .get_template(answer.template)
            .render(
                visit=visit,
                visitor=visit.visitor,
                texts=visit.texts,
                query=visit.query,
                form=visit.form,
                prefix=self._prefix,
                is_demo=self._is_demo,
                views=self._views,
                view=view,
                title=view.title if view is not None else answer.values.get("title", ""),
                languages=LANGUAGES,
                roles=ROLE_WORDS,
                version=__version__,
                **{name: value for name, value in answer.values.items() if name not in ("view", "title")},
            )
        )


@cache
def environment_of(texts: ViewTexts) -> Environment:
    """Return the templates of the console in a language. Compiling one takes a tenth of a second."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=texts.number,
        percent=texts.percent,
        time=texts.time,
        day=texts.day,
        query=urlencode,
        places=partial(places_in, texts),
    )
    name_in = partial(name_of, language=texts.language)
    # In the page of the map, `code` is a territory.
    environment.globals.update(
        asset=asset_url, _=texts.gettext, money=texts.money, code=texts.code, code_words=texts.code, name_of=name_in
    )
    environment.globals["may_act"] = may_act
    for words in (failure_words, answer_words, first_words, why_words, value_words, summary_words):
        environment.globals[words.__name__] = partial(words, texts)
    return environment


def answer_words(texts: ViewTexts, kind: AnswerChangeKind) -> str:
    """Return what happens to the users of a territory."""
    return texts.gettext(ANSWER_WORDS[kind])


def first_words(texts: ViewTexts, change: Mapping[str, Any], side: str) -> str:
    """Return who answers first `before` or `after` a change. A plan that 0.2.0 stored has no code of a refusal."""
    refusal = change.get(f"{side}_refusal")
    refused = texts.gettext(_("refused"))
    return texts.with_note(refused, texts.code("error", refusal)) if refusal else str(change[side])


def why_words(texts: ViewTexts, change: Mapping[str, Any]) -> str:
    """Return why no deployment answers any more, or an empty text."""
    skipped = change.get("skipped") or ()
    words = [f"{one['deployment']}: {texts.code('skip', one['reason'], one['detail'])}" for one in skipped]
    return "; ".join(words) or change["why"] or ""


def value_words(texts: ViewTexts, change: Mapping[str, Any], side: str) -> str:
    """Return the value of a key `before` or `after` a change."""
    is_missing = change.get("kind") == {"before": "added", "after": "removed"}[side]
    return texts.gettext(_("not set")) if is_missing else str(change[side])


def summary_words(texts: ViewTexts, activation: Mapping[str, Any]) -> str:
    """Return what an activation has changed: `+region cn, ~assistant/cn and 14 more`."""
    words = ", ".join(_item_words(texts, item) for item in activation["summary_items"])
    more = activation["summary_more"]
    return (words or texts.gettext(_("nothing"))) + (texts.gettext(_(" and {n} more")).format(n=more) if more else "")


def _item_words(texts: ViewTexts, item: Mapping[str, Any]) -> str:
    words = texts.gettext(_("region {name}")).format(name=item["name"]) if item["of"] == "region" else item["name"]
    return f"{MARKS[item['kind']]}{words}" if item["kind"] is not None else str(words)
