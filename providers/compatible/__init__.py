"""Vendors that speak OpenAI's dialect with differences: one engine, and one TOML file for each vendor."""
