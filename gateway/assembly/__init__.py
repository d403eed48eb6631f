"""Wiring: a config version becomes an application."""
