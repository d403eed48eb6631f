CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS clients (name TEXT PRIMARY KEY, definition TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS projects (name TEXT PRIMARY KEY, definition TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS api_keys (
  id TEXT PRIMARY KEY,
  client TEXT NOT NULL,
  owner TEXT NOT NULL,
  note TEXT NOT NULL,
  created_at REAL NOT NULL,
  expires_at REAL,
  revoked_at REAL,
  last_used_at REAL
) STRICT;
CREATE INDEX IF NOT EXISTS api_keys_client ON api_keys (client);
CREATE TABLE IF NOT EXISTS key_secrets (
  digest TEXT PRIMARY KEY,
  key_id TEXT NOT NULL,
  created_at REAL NOT NULL,
  valid_until REAL
) STRICT;
CREATE INDEX IF NOT EXISTS key_secrets_key ON key_secrets (key_id);
CREATE TABLE IF NOT EXISTS admin_tokens (
  id TEXT PRIMARY KEY,
  digest TEXT NOT NULL UNIQUE,
  role TEXT NOT NULL,
  note TEXT NOT NULL,
  created_at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS audit_entries (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  event TEXT NOT NULL,
  fields TEXT NOT NULL
) STRICT;
