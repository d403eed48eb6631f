"""Decisions: pure, synchronous functions over one immutable table. No I/O, no logging, no clock, no httpx."""
