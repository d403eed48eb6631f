"""What clients may use and what they used: limits, usage rows, the ledger and reports."""
