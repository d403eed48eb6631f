"""Redaction keeps nothing, and acts where a request is written for a deployment."""

from __future__ import annotations

from gateway.features.feature import Feature

REDACTION = Feature("redaction", kept=None, watcher=None, of_users=None)
