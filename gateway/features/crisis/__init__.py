"""Help in a crisis: what a user writes is judged first, and a text with a number to call is given."""
