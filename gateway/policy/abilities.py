"""What a deployment can do of what is asked."""

from __future__ import annotations

from gateway.model.deployment import Deployment
from providers.fitting import Fit, Needs, fit, has_effects_there

__all__ = ["fit_of", "has_effects_at"]


def fit_of(deployment: Deployment, needs: Needs) -> Fit:
    """How the request fits it, by its provider's format, its model, and what its operator lets through."""
    target = deployment.target
    return fit(needs, deployment.capabilities, target.facts, target.passthrough, deployment.allowed_moves)


def has_effects_at(deployment: Deployment, needs: Needs) -> bool:
    """Whether a deployment that the request fits keeps or does something for it besides answering."""
    target = deployment.target
    return has_effects_there(needs, deployment.capabilities, target.passthrough, deployment.allowed_moves)
