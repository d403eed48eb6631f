"""Send requests to any provider of assistants in one canonical format. This package does not depend on the gateway."""
