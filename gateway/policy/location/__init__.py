"""Locations: the signals, one module for each, and the decision that follows from their reports."""

from gateway.policy.location.resolution import SIGNALS, SignalLocator, can_locate, location_key, resolve, suppose

__all__ = ["SIGNALS", "SignalLocator", "can_locate", "location_key", "resolve", "suppose"]
