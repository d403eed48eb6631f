"""The face of a feature where a configuration or a request is shown: each place asks every feature in order. Pure.

A field has no default, so that a feature states for each place what it adds there, or `nothing`. A new place is a new
field: the type checker then names the features that have to fill it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Never

from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.deployment import Deployment
from gateway.model.location import Location


def nothing(*_: object) -> Iterator[Never]:
    """Yield nothing: the feature is not shown in this place."""
    yield from ()


@dataclass(frozen=True, slots=True)
class FeatureView:
    """The places in which one feature is shown.

    Attributes:
        recipients: Yields the deployments to which it sends prompts of a route next to its steps, with the path of the
            key that names each.
        report_region: Yields the lines of `check` about a region: a heading, and the text.
        report_route: Yields the lines of `check` about a route: a text, or a deployment.
        plan_names: The names in a plan of the parts that it hangs on a region or a deployment.
        plan_words: Yields the words of a plan about a route. Other words are a change of the route.
        off_without_state: Yields the event and the text of the warning that it needs a state directory.
        explain: Yields the members that `explain` shows for a location: the name, the value and the text. An empty
            text is not shown.
        receipt: Its members of a receipt. Each is null unless the record has a note of the feature.
        receipt_recipients: Those of them that name a deployment that was sent the prompt.
    """

    recipients: Callable[[Assistant, str], Iterator[tuple[tuple[str | int, ...], Deployment]]]
    report_region: Callable[[Region], Iterator[tuple[str, str]]]
    report_route: Callable[[Assistant, str], Iterator[str | Deployment]]
    plan_names: Mapping[type[Any], str]
    plan_words: Callable[[Assistant, str], Iterator[str]]
    off_without_state: Callable[[ConfigVersion], Iterator[tuple[str, str]]]
    explain: Callable[[Location], Iterator[tuple[str, object, str]]]
    receipt: tuple[str, ...]
    receipt_recipients: tuple[str, ...]
