"""Speak to any assistant provider in one canonical shape; knows nothing of the gateway."""
