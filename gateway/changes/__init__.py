"""Changes of the configuration: watch, validate, plan, activate, roll back, and record the sender of each change."""

from __future__ import annotations
