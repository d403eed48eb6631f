CREATE TABLE IF NOT EXISTS receipt (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, client TEXT NOT NULL, at_s REAL NOT NULL, content TEXT NOT NULL,
    seal TEXT
);
CREATE INDEX IF NOT EXISTS receipt_of_id ON receipt (id, client);
CREATE INDEX IF NOT EXISTS receipt_of_age ON receipt (at_s);
