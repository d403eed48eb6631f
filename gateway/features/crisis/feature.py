"""The gate of crises in a process."""

from __future__ import annotations

from gateway.features.crisis.gate import CrisisGate
from gateway.features.feature import Feature

CRISIS = Feature("crisis", kept=None, of_users=None, gate=CrisisGate, watcher=None, paths=())
