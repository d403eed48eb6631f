"""The persistent state in GATEWAY_STATE_DIR. Each part has its own database, and is off without a directory."""
