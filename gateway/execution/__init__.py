"""The only I/O to providers: permits are checked, bytes are sent, failures are classified and retried here."""
