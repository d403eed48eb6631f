"""The rules for minors keep nothing, and only decide."""

from __future__ import annotations

from gateway.features.feature import Feature

MINORS = Feature("minors", kept=None, of_users=None, watcher=None)
