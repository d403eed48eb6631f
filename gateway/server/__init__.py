"""The processes that serve: listeners, HTTP/1.1 on a connection, one process or a supervisor with its workers."""
