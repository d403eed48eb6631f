"""Shadow traffic: a share of the answered chats is also sent to a deployment whose answers no client sees."""
