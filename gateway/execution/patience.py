"""For how long an attempt may stay silent before the next step is asked. Pure."""

from __future__ import annotations

from gateway.model.config_version import Resilience
from gateway.model.deployment import Deployment
from providers.chat import ChatRequest
from providers.fitting import thinks_unseen


def first_token_s(deployment: Deployment, request: ChatRequest, bounds: Resilience) -> float:
    """Seconds to the first real event: the deployment's own, else the one for all, which a model that thinks unseen
    has several times over."""
    if deployment.first_token_s is not None:
        return deployment.first_token_s
    facts = deployment.target.facts
    if facts.first_token_factor != 1 and thinks_unseen(request, facts):
        return bounds.first_token_s * facts.first_token_factor
    return bounds.first_token_s
