"""What outlives a request, in GATEWAY_STATE_DIR. Each part has a database of its own; without a directory it is off."""
