"""Logs, metrics and traces for finished requests. They never contain prompts or keys."""
