"""The vendor `hunyuan`: wire format, errors, simulator and facts."""
