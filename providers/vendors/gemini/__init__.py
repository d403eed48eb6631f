"""The vendor `gemini`: wire format, errors, simulator and facts."""
