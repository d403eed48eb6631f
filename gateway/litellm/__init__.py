"""The converter: a configuration of LiteLLM becomes one of this gateway."""
