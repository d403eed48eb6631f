"""The vendor `openai`: wire format, errors, simulator and facts."""
