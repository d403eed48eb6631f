CREATE TABLE IF NOT EXISTS schedules (
  assistant TEXT NOT NULL,
  region TEXT NOT NULL,
  identity TEXT NOT NULL,
  progress TEXT NOT NULL,
  PRIMARY KEY (assistant, region)
) STRICT;
CREATE TABLE IF NOT EXISTS version_schedules (
  version TEXT NOT NULL,
  assistant TEXT NOT NULL,
  region TEXT NOT NULL,
  identity TEXT NOT NULL,
  progress TEXT NOT NULL,
  PRIMARY KEY (version, assistant, region)
) STRICT
