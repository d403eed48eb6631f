"""Limits of clients, and the usage of providers: usage rows, spools, the ledger and reports."""
