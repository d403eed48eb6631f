"""Frozen values that pass between the layers; they know nothing of HTTP, YAML or the clock."""
