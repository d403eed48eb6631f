"""The vendor `bedrock`: wire format, errors, simulator and facts."""
