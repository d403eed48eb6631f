CREATE TABLE IF NOT EXISTS answers (id INTEGER PRIMARY KEY,
  at REAL NOT NULL,
  table_version TEXT NOT NULL,
  request_id TEXT NOT NULL,
  assistant TEXT NOT NULL,
  region TEXT NOT NULL,
  deployment TEXT NOT NULL,
  model TEXT NOT NULL,
  stream INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  first_s REAL NOT NULL,
  total_s REAL NOT NULL,
  prompt_tokens INTEGER,
  completion_tokens INTEGER,
  finish_reason TEXT,
  answer_characters INTEGER NOT NULL,
  tool_calls INTEGER NOT NULL,
  "beside" TEXT,
  beside_first_s REAL,
  beside_total_s REAL,
  beside_prompt_tokens INTEGER,
  beside_completion_tokens INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS texts (id INTEGER PRIMARY KEY, prompt TEXT NOT NULL, answer TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS extras (id INTEGER PRIMARY KEY, refusal TEXT, calls TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS "besides" (id INTEGER PRIMARY KEY, beside_answer TEXT NOT NULL) STRICT;
