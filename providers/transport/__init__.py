"""HTTP/1.1 to providers over a lean connection pool, without httpx."""
