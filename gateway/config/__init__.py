"""Load, validate and compile a configuration file into a `ConfigVersion`. Depends on neither HTTP nor requests."""
