"""Changes of the configuration: watch, validate, plan, activate, roll back, and record who changed what."""

from __future__ import annotations
