CREATE TABLE series ($number, client text NOT NULL, project text NOT NULL, region text NOT NULL,
    provider text NOT NULL, site text NOT NULL, deployment text NOT NULL, model text NOT NULL,
    usage_source text NOT NULL, currency text NOT NULL, vendor_currency text NOT NULL,
    CONSTRAINT series_key UNIQUE (client, project, region, provider, site, deployment, model, usage_source, currency,
    vendor_currency));
CREATE TABLE usage_row ($number, call_id text NOT NULL, time_ns bigint NOT NULL, day text NOT NULL,
    hour text NOT NULL, series bigint NOT NULL, kind text NOT NULL, request_id text, end_user text, territory text,
    config_version text, price_version text, input_tokens bigint NOT NULL, cached_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL, output_tokens bigint NOT NULL, reasoning_tokens bigint NOT NULL,
    vendor_amount_nano bigint, amount_nano bigint, rate text, outcome text, budget_of text, budget_per text,
    budget_unit text, budget_amount bigint, CONSTRAINT usage_row_call UNIQUE (call_id));
CREATE INDEX usage_row_of_time ON usage_row (time_ns);
CREATE TABLE spool_position (instance text, file text, position bigint NOT NULL, PRIMARY KEY (instance, file));
CREATE TABLE ledger_fact (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE total_hour (day text, hour text, series bigint, $sums, PRIMARY KEY (day, hour, series));
CREATE TABLE total_day (day text, series bigint, $sums, PRIMARY KEY (day, series));
CREATE TABLE total_user_day (day text, end_user text, series bigint, $sums, PRIMARY KEY (day, end_user, series));
CREATE TABLE gate_owner (owner text PRIMARY KEY, epoch text NOT NULL, phase text NOT NULL, seen_us bigint NOT NULL);
CREATE TABLE gate_epoch (epoch text PRIMARY KEY, last_row bigint NOT NULL);
