"""From a provider's bytes to canonical events and answers. No module here knows a vendor."""
