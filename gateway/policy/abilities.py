"""What a deployment can do of what is asked."""

from __future__ import annotations

from gateway.model.deployment import Deployment
from providers.fitting import Fit, Needs, fit

__all__ = ["fit_of"]


def fit_of(deployment: Deployment, needs: Needs) -> Fit:
    """How the request fits it, by its provider's format, its model, and what its operator lets through."""
    target = deployment.target
    return fit(needs, deployment.capabilities, target.facts, target.passthrough, deployment.allowed_moves)
