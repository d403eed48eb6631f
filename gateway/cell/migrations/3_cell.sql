CREATE TABLE cell_instance (instance text PRIMARY KEY, owner text NOT NULL, name text NOT NULL, version text NOT NULL,
    release text NOT NULL, since text NOT NULL, is_draining boolean NOT NULL, rows_waiting bigint,
    seen_at double precision NOT NULL);
CREATE TABLE cell_lease (name text PRIMARY KEY, holder text NOT NULL, epoch bigint NOT NULL,
    until timestamptz NOT NULL);
CREATE TABLE cell_schedule (version text, assistant text, region text, identity text NOT NULL, progress text NOT NULL,
    epoch bigint NOT NULL, revision bigint NOT NULL, changed_at double precision NOT NULL,
    PRIMARY KEY (version, assistant, region));
CREATE INDEX cell_schedule_changed ON cell_schedule (changed_at);
CREATE TABLE cell_count (owner text, assistant text, region text, identity text, stage bigint,
    candidate text NOT NULL, baseline text NOT NULL, PRIMARY KEY (owner, assistant, region, identity, stage));
CREATE TABLE cell_command ($number, action text NOT NULL, version text NOT NULL, who text NOT NULL,
    signature text NOT NULL, owner text NOT NULL, noted_at double precision NOT NULL);
CREATE TABLE cell_version (version text PRIMARY KEY, content text NOT NULL, text bytea, why_not text NOT NULL,
    catalogues text NOT NULL);
CREATE TABLE cell_activation ($number, instance text NOT NULL, source bigint NOT NULL, version text NOT NULL,
    previous text NOT NULL, cause text NOT NULL, who text NOT NULL, summary text NOT NULL, plan text NOT NULL,
    at_s double precision NOT NULL, received_at double precision NOT NULL,
    CONSTRAINT cell_activation_source UNIQUE (instance, source));
CREATE TABLE cell_audit_line (instance text, number bigint, hash text NOT NULL, line bytea NOT NULL,
    PRIMARY KEY (instance, number));
CREATE TABLE console_session (id text PRIMARY KEY, token text NOT NULL, began_at double precision NOT NULL,
    used_at double precision NOT NULL);
