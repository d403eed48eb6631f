"""The assistants: the routes of each region and use, the intents of chats, and what users may choose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gateway.model.deployment import Deployment
from gateway.model.hand_off import HandOff
from gateway.model.parts import NO_PARTS, Part, Parts
from gateway.model.region_text import Sentences
from gateway.model.route import Barrier, Route, step_text
from gateway.model.schedule import Schedule
from gateway.model.served import USES, Use
from gateway.model.wrapper import Wrapper
from providers.value import Value, replace

DEFAULT_INTENT = "default"
"""The routes of chats of no intent. It is not an intent itself."""


class Intent(Value, frozen=True):
    """A kind of chats with routes of its own. `tools`: patterns of tool names, by which a chat is of this kind."""

    name: str
    tools: tuple[str, ...] = ()


class UserChoice(Value, frozen=True):
    """Deployments that a user may prefer, under one name. `title`: the name for the user."""

    name: str
    deployments: frozenset[str]
    title: Sentences


RoutePath = tuple[str | int, ...]
"""The path of a key in the configuration."""


class RoutePart(Part):
    """Base of a part of a route of an assistant in a region. A part overrides the methods that concern it."""

    __slots__ = ()

    def recipients(self, path: RoutePath) -> Iterable[tuple[RoutePath, Deployment]]:
        """Return the deployments that get prompts of the route next to its steps, with the path of the key of each."""
        return ()

    def route_lines(self) -> Iterable[str | Deployment]:
        """Return the lines of `check` about the route: a text, or a deployment."""
        return ()

    def plan_words(self) -> str:
        """Return its words in a plan. Other words are a change of the route."""
        return ""

    def off_without_state(self) -> tuple[str, str] | None:
        """Return the event and the text of the warning that it needs a state directory, or None."""
        return None


class Assistant(Value, frozen=True):
    """The product that a client names in `model`, with one route for each region and use."""

    name: str
    routes: Mapping[str, Route]
    """The ordered steps, by the name of the region. Those of chats, unless `for_use` has made this value. With a
    barrier, these are the private steps."""
    aliases: tuple[str, ...] = ()
    reveal_model: bool = True
    """Whether clients are shown which model answers."""
    resume: bool = False
    """Whether the next step continues an answer that breaks off in mid-stream."""
    schedules: Mapping[str, Schedule] = {}
    """The schedule that raises the weight of a candidate in the route's first step, by region."""
    route_parts: Mapping[str, Parts] = {}
    """The parts of features on the route, by region. Features may read the answers of such a route."""
    by_use: Mapping[Use, Mapping[str, Route]] = {}
    """The routes of the uses that are not chat, by the name of the region."""
    use: Use = "chat"
    """The kind of requests that `routes` are for."""
    intents: tuple[Intent, ...] = ()
    """The intents of chats, in the order in which they are looked at."""
    by_intent: Mapping[str, Assistant] = {}
    """The assistant as chats of an intent see it. An intent without a route in a region has the default."""
    intent: str = DEFAULT_INTENT
    """The intent whose routes these are. `default` for those of no intent."""
    choices: Mapping[str, UserChoice] = {}
    """The names that a user may prefer."""
    order: str = ""
    """Names the order of a route that a user's preference has changed. Empty for the operator's order."""
    barriers: Mapping[str, Barrier] = {}
    """The barrier after the route, by region."""
    opened: HandOff | None = None
    """The hand-off by which `routes` are the steps after a barrier, or None if they are those before it."""
    wrapper: Wrapper | None = None
    """The wrapper of all that is sent after an open barrier, or None."""

    def with_routes(self, intent: str, own: Mapping[str, Route], barriers: Mapping[str, Barrier]) -> Assistant:
        """Return the assistant for an intent with routes of its own. Schedules and parts are of the default route."""
        return replace(
            self,
            routes={**self.routes, **own},
            schedules={region: it for region, it in self.schedules.items() if region not in own},
            route_parts={region: it for region, it in self.route_parts.items() if region not in own},
            intent=intent,
            barriers={region: it for region, it in self.barriers.items() if region not in own} | dict(barriers),
        )

    def parts_in(self, region: str) -> Parts:
        """Return what features hang on the route of a region."""
        return self.route_parts.get(region, NO_PARTS)

    def recipients(self, region: str) -> Iterator[tuple[RoutePath, Deployment]]:
        """Yield the deployments that get prompts of a route next to its steps, with the path of the key of each."""
        parts: tuple[RoutePart, ...] = self.parts_in(region).every
        for part in parts:
            yield from part.recipients((self.name, region))

    def for_intent(self, intent: str) -> Assistant:
        """Return the assistant as chats of this intent see it."""
        return self.by_intent.get(intent, self)

    @property
    def views(self) -> tuple[Assistant, ...]:
        """This assistant, and its view for each intent with a route of its own."""
        own = [it for it in self.by_intent.values() if (it.routes, it.barriers) != (self.routes, self.barriers)]
        return self, *own

    def behind(self, region: str, opened: HandOff) -> Assistant:
        """Return the assistant with the steps after the barrier of a region, which is open for a request."""
        barrier = self.barriers[region]
        behind = replace(
            self, routes={region: barrier.listed}, schedules={}, route_parts={}, barriers={}, opened=opened
        )
        return behind if barrier.wrapper is None else replace(behind, wrapper=barrier.wrapper)

    def whole_route(self, region: str) -> Route:
        """Return the steps before and after the barrier of a region, for those who show or check a config."""
        barrier = self.barriers.get(region)
        return (*self.routes.get(region, ()), *(barrier.listed if barrier is not None else ()))

    def route_words(self, region: str) -> tuple[str, ...]:
        """Return the steps of a region as they are written, with the barrier between them."""
        barrier = self.barriers.get(region)
        behind = (str(barrier.rule), *map(step_text, barrier.listed)) if barrier is not None else ()
        return (*map(step_text, self.routes.get(region, ())), *behind)

    def every_step(self, region: str) -> Route:
        """Return the steps of all routes of a region: of every intent and use, also those after a barrier."""
        chats = [step for view in self.views for step in view.whole_route(region)]
        return *chats, *(step for use in USES[1:] for step in self.routes_for(use).get(region, ()))

    def routes_for(self, use: Use) -> Mapping[str, Route]:
        """Return the routes of one use, by the name of the region."""
        return self.routes if use == "chat" else self.by_use.get(use, {})

    def for_use(self, use: Use) -> Assistant:
        """Return the assistant as one use sees it. Only chats have schedules, parts of a route and resumed answers."""
        if use == "chat":
            return self
        plain = replace(self, routes=self.routes_for(use), resume=False, schedules={}, route_parts={}, use=use)
        return replace(plain, intents=(), by_intent={}, choices={}, barriers={})

    @property
    def regions(self) -> tuple[str, ...]:
        """The names of the regions in which it has a route of any use."""
        return tuple(dict.fromkeys(name for use in USES for name in self.routes_for(use)))
