"""The areas of the map: who answers first in each territory, the legend, and the names of products on the map."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from gateway.console.texts import ViewTexts, _
from gateway.console.vendors import REFUSED, Product, product_at
from gateway.console.world import PINS, Place, name_of, world
from gateway.model.config_version import ConfigVersion
from gateway.policy.territory_answers import Answers, TerritoryAnswer
from providers.value import Value

# A territory above this size is never smaller than a mark, on the smallest screen.
_LARGEST_MARK = 1100
# In units of the map: a circle in which the name of a product fits, and the least distance of two equal names.
_ROOM, _APART = 2300, 17_000
_LEAST_TOTAL, _NEAR = 2500, 1200


class Area(Value, frozen=True):
    """A territory on the map."""

    code: str
    place: Place
    look: int
    """The number of the colour and pattern; `REFUSED` if no deployment answers."""
    first: str
    """The deployment that answers first, or `refused`."""
    label: str
    """Its name, its region and who answers, for screen readers and tooltips."""
    is_chosen: bool
    is_changed: bool
    can_be_small: bool
    """Whether it gets a mark on some screens."""
    is_pinned: bool


class LegendEntry(Value, frozen=True):
    """A product in the legend. Each part has a first deployment or the reason of a refusal, and its territories."""

    look: int
    title: str
    parts: Sequence[tuple[str, Sequence[tuple[str, str]]]]


class MapLabel(Value, frozen=True):
    """The name of a product at a position of the map."""

    text: str
    x: int
    y: int


def product_of_answer(config: ConfigVersion, answer: TerritoryAnswer) -> Product | None:
    """Return the product that answers first, or None if no deployment answers."""
    deployment = config.deployments.get(answer.deployments[0]) if answer.deployments else None
    return product_at(deployment) if deployment is not None else None


def areas(
    config: ConfigVersion, answers: Answers, chosen: str | None, changed: Collection[str], texts: ViewTexts
) -> list[Area]:
    """Return the areas, the largest first, so that a small one is painted over the one around it."""
    language, comma, colon = texts.language, texts.gettext(_(", ")), texts.gettext(_(": "))
    selected = chosen[:2] if chosen is not None else None
    shown = []
    for code, place in world().places.items():
        answer = answers[code]
        product = product_of_answer(config, answer)
        region = texts.gettext(_("blocked") if config.blocked.contains(code) else answer.region or _("in no region"))
        who = (
            f"{product.title(language)}{comma}{answer.first}"
            if product
            else texts.with_note(texts.gettext(_("refused")), texts.code("error", answer.refusal))
        )
        look = product.look if product else REFUSED
        small, pinned = place.size < _LARGEST_MARK, code in PINS
        # The mark of a pinned territory shows its code, so its name has it too.
        label = f"{name_of(code, language)}{comma + code if pinned else ''}{colon}{region}{comma}{who}"
        shown.append(Area(code, place, look, answer.first, label, code == selected, code in changed, small, pinned))
    return shown


def legend(config: ConfigVersion, answers: Answers, language: str) -> list[LegendEntry]:
    """Return an entry for each product in the order of the regions, then one for the territories without an answer."""
    order = {name: number for number, name in enumerate(config.regions)}
    listed = sorted(answers, key=lambda code: order.get(answers[code].region or "", len(order)))
    titles: dict[int, str] = {}
    parts: dict[int, dict[str, list[tuple[str, str]]]] = {}
    for code in listed:
        answer = answers[code]
        product = product_of_answer(config, answer)
        if product is None:
            look, part = REFUSED, "blocked" if config.blocked.contains(code) else str(answer.refusal)
        else:
            look, part = product.look, answer.first
            titles[look] = product.title(language)
        parts.setdefault(look, {}).setdefault(part, []).append((code, name_of(code, language)))
    return [
        LegendEntry(
            look,
            titles.get(look, ""),
            [(part, sorted(members, key=lambda member: member[1])) for part, members in named.items()],
        )
        for look, named in sorted(parts.items(), key=lambda item: item[0] == REFUSED)
    ]


def labels(config: ConfigVersion, answers: Answers, language: str) -> list[MapLabel]:
    """Return the names of products for the map: in large territories, and once among the small ones of a region."""
    groups: dict[tuple[str, str], list[Place]] = {}
    for code, place in world().places.items():
        product = product_of_answer(config, answers[code])
        if product is not None:
            groups.setdefault((product.name(language), answers[code].region or ""), []).append(place)
    return [
        MapLabel(text, x, y) for (text, _), places in groups.items() for x, y in _label_positions(places)
    ]  # fmt: skip


def _label_positions(places: Sequence[Place]) -> Iterator[tuple[int, int]]:
    chosen: list[tuple[int, int]] = []
    for place in sorted(places, key=lambda place: -place.radius):
        if place.radius >= _ROOM and all(math.dist(place.position, other) > _APART for other in chosen):
            chosen.append(place.position)
    total = sum(place.size**2 for place in places)
    if not chosen and math.sqrt(total) >= _LEAST_TOTAL:
        middle = (
            round(sum(place.x * place.size**2 for place in places) / total),
            round(sum(place.y * place.size**2 for place in places) / total),
        )
        # Territories around an ocean have their middle in the water.
        if any(math.dist(place.position, middle) < max(place.size, _NEAR) for place in places):
            chosen.append(middle)
    yield from chosen


class Move(Value, frozen=True):
    """The territories in which an edit changed the first deployment, or `refused`, in the same way."""

    before: str
    before_look: int
    after: str
    after_look: int
    members: Sequence[tuple[str, str]]


def moves(old: ConfigVersion, before: Answers, new: ConfigVersion, after: Answers, language: str) -> list[Move]:
    """Return the territories whose first deployment differs; where an answer is lost, they come first."""
    groups: dict[tuple[bool, str, int, str, int], list[tuple[str, str]]] = {}
    for code, answer in after.items():
        was = before.get(code, answer)
        if was.first != answer.first:
            looks = [
                product.look if product else REFUSED
                for product in (product_of_answer(old, was), product_of_answer(new, answer))
            ]
            key = (answer.has_answer, was.first, looks[0], answer.first, looks[1])
            groups.setdefault(key, []).append((code, name_of(code, language)))
    return [
        Move(was, was_look, now, now_look, sorted(members, key=lambda member: member[1]))
        for (_, was, was_look, now, now_look), members in sorted(
            groups.items(), key=lambda item: (item[0][0], -len(item[1]))
        )
    ]
