"""What is told of a finished request: never a prompt, never a key."""
