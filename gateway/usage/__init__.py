"""Limits of clients, and the usage of providers: the journal, usage rows, the ledger and reports."""
