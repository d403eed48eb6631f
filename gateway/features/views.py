"""The views of all features, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.features.minors.views import MINORS_VIEW
from gateway.features.shadow.views import SHADOW_VIEW
from gateway.model.assistant import Assistant
from gateway.model.config_version import Region
from gateway.model.deployment import Deployment
from gateway.model.location import Location
from gateway.policy.feature_view import FeatureView

VIEWS: tuple[FeatureView, ...] = (MINORS_VIEW, SHADOW_VIEW)
PLAN_NAMES = {field: name for view in VIEWS for field, name in view.plan_names.items()}
NO_NOTES = dict.fromkeys(member for view in VIEWS for member in view.receipt)
"""The members of the receipt of a request with which no feature did anything."""
RECEIPT_RECIPIENTS = tuple(member for view in VIEWS for member in view.receipt_recipients)


def further_recipients(assistant: Assistant, region: str) -> Iterator[tuple[tuple[str | int, ...], Deployment]]:
    """Yield the deployments that get prompts of a route next to its steps, with the path of the key that names each."""
    for view in VIEWS:
        if view.recipients is not None:
            yield from view.recipients(assistant, region)


def report_of_region(region: Region) -> Iterator[tuple[str, str]]:
    """Yield the lines of `check` about a region: a heading, and the text."""
    for view in VIEWS:
        if view.report_region is not None:
            yield from view.report_region(region)


def report_of_route(assistant: Assistant, region: str) -> Iterator[str | Deployment]:
    """Yield the lines of `check` about a route: a text, or a deployment."""
    for view in VIEWS:
        if view.report_route is not None:
            yield from view.report_route(assistant, region)


def explained(location: Location) -> Iterator[tuple[str, object, str]]:
    """Yield the members that `explain` shows for a location: the name, the value and the text."""
    for view in VIEWS:
        if view.explain is not None:
            yield from view.explain(location)


def plan_words(assistant: Assistant, region: str) -> Iterator[str]:
    """Yield the words of a plan about a route."""
    for view in VIEWS:
        if view.plan_words is not None:
            yield from view.plan_words(assistant, region)


def compared(assistant: Assistant, region: str) -> Iterator[object]:
    """Yield the values that have to be equal, or else the route has changed."""
    for view in VIEWS:
        if view.compared is not None:
            yield view.compared(assistant, region)
