"""A region-aware AI-assistant gateway: one chat endpoint, answered by region, inside the region's boundary."""

__version__ = "0.1.0"
