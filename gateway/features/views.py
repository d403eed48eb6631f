"""The views of all features, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.features.crisis.views import CRISIS_VIEW
from gateway.features.duties.views import DUTIES_VIEW
from gateway.features.marks.views import MARKS_VIEW
from gateway.features.minors.views import MINORS_VIEW
from gateway.features.redaction.views import REDACTION_VIEW
from gateway.features.shadow.views import SHADOW_VIEW
from gateway.model.assistant import Assistant
from gateway.model.deployment import Deployment
from gateway.policy.feature_view import FeatureView

VIEWS: tuple[FeatureView, ...] = (CRISIS_VIEW, MINORS_VIEW, REDACTION_VIEW, SHADOW_VIEW, DUTIES_VIEW, MARKS_VIEW)
PLAN_NAMES: dict[type[Any], str] = {kind: name for view in VIEWS for kind, name in view.plan_names.items()}
NO_NOTES = dict.fromkeys(member for view in VIEWS for member in view.receipt)
"""The members of the receipt of a request with which no feature did anything."""
RECEIPT_RECIPIENTS = tuple(member for view in VIEWS for member in view.receipt_recipients)


def further_recipients(assistant: Assistant, region: str) -> Iterator[tuple[tuple[str | int, ...], Deployment]]:
    """Yield the deployments that get prompts of a route next to its steps, with the path of the key that names each."""
    for view in VIEWS:
        yield from view.recipients(assistant, region)
