"""Frozen values that the layers share. They do not depend on HTTP, YAML or the clock."""
