"""The vendor `dashscope`: wire format, errors, simulator and facts."""
