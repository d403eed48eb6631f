"""One module per wire format; each is reached by its entry point and imports nothing of the others."""
