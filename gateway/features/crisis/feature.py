"""Help in a crisis keeps nothing, and runs within the request (`gateway/service/crisis.py`)."""

from __future__ import annotations

from gateway.features.feature import Feature

CRISIS = Feature("crisis", kept=None, of_users=None, watcher=None)
