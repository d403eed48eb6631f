"""Signed marks keep nothing. They are made where an answer is encoded, and checked by two public paths."""

from __future__ import annotations

from gateway.features.feature import Feature

MARKS = Feature("marks", kept=None, of_users=None, watcher=None)
