"""The config while it is served: loaded at the start, watched, compiled elsewhere, swapped; and what is kept of it."""
