"""Locations: the signals, and the decision that follows from their reports."""

from gateway.policy.location.resolution import SignalLocator, can_locate, location_key, resolve, suppose
from gateway.policy.location.signals import SIGNALS

__all__ = ["SIGNALS", "SignalLocator", "can_locate", "location_key", "resolve", "suppose"]
