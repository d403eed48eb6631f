"""The vendor `anthropic`: wire format, errors, simulator and facts."""
