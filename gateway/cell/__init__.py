"""The shared stores of a cell: Valkey behind `UsageGate`, and PostgreSQL behind `Database`."""
