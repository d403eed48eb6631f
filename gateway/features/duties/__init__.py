"""Duties of a chat over time: how long a user may chat, and how often the user sees a notice that repeats."""
