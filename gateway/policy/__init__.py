"""Decisions as pure, synchronous functions of one immutable config version: no I/O, no logging, no clock, no httpx."""
