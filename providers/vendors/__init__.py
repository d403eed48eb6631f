"""Vendors with their own wire format: one folder each, with adapter, simulator and facts."""
