"""From what a person writes to the table: schema -> load -> compile. Knows neither HTTP nor requests."""
