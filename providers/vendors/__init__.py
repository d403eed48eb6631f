"""One folder for each vendor with a wire format of its own: adapter, simulator and facts together."""
