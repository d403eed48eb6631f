"""The shared stores of a cell: Valkey as a `UsageGate`, and PostgreSQL as a `Database`."""
