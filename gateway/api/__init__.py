"""HTTP in, HTTP out: the only layer that knows headers, status codes and OpenAI's envelope."""
