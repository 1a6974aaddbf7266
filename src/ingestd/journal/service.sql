-- The service's journal: requests by package (the same request makes the same AIP), and the outbox.
CREATE TABLE IF NOT EXISTS request (
    package        TEXT PRIMARY KEY,  -- the AIP's UUID: v5 of tenant and idempotency key
    request        TEXT NOT NULL,     -- the id that the request gave itself
    origin         TEXT NOT NULL,     -- 'embedded' or the transport's name
    content_digest TEXT NOT NULL,     -- what was asked for
    envelope       TEXT NOT NULL,     -- the request, as JSON
    state          TEXT NOT NULL,
    attempt        INTEGER NOT NULL,
    sequence       INTEGER NOT NULL,
    reply_to       TEXT,
    correlation    TEXT,
    created_at     TEXT NOT NULL,
    started_at     TEXT,
    finished_at    TEXT,
    result         TEXT,              -- the terminal event, as JSON
    untold         INTEGER NOT NULL DEFAULT 0, -- whether it ended, and who asked without a broker was not told yet
    reopened_at    TEXT               -- when the present attempt was asked for, if it is a retry
);
CREATE INDEX IF NOT EXISTS request_state ON request (state);
CREATE INDEX IF NOT EXISTS request_content ON request (content_digest);

CREATE TABLE IF NOT EXISTS outbox (
    row          INTEGER PRIMARY KEY AUTOINCREMENT,
    event        TEXT NOT NULL,
    terminal     INTEGER NOT NULL,
    package      TEXT,
    reply_to     TEXT,
    correlation  TEXT,
    confirmed_at TEXT
);
CREATE INDEX IF NOT EXISTS outbox_unconfirmed ON outbox (row) WHERE confirmed_at IS NULL;

-- How often rules of the format policy registry were followed, over all packages that ended.
CREATE TABLE IF NOT EXISTS rule_count (
    rule     TEXT NOT NULL,
    command  TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    okay     INTEGER NOT NULL,
    PRIMARY KEY (rule, command)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rule_added (
    package TEXT PRIMARY KEY,
    counts  TEXT NOT NULL -- JSON: what of this package is in rule_count, [[rule, command, attempts, okay], ...]
) WITHOUT ROWID;

-- Who asked, under another id, for what was at work already, and is to be told the result.
CREATE TABLE IF NOT EXISTS asker (
    package      TEXT NOT NULL,
    request      TEXT NOT NULL,
    source       TEXT NOT NULL,
    envelope     TEXT NOT NULL,
    reply_to     TEXT,
    correlation  TEXT,
    answered     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (package, request, source)
);

-- Requests of a batch whose end the batch does not know yet.
CREATE TABLE IF NOT EXISTS uncounted (
    package      TEXT PRIMARY KEY
);

-- Cancellations, which may come before their requests.
CREATE TABLE IF NOT EXISTS tombstone (
    request      TEXT NOT NULL,       -- the id of a request, or of its package
    tenant       TEXT NOT NULL,       -- empty: of any
    reason       TEXT NOT NULL,
    until        TEXT NOT NULL,
    at           TEXT,
    PRIMARY KEY (request, tenant)
);
