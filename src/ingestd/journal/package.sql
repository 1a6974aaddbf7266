-- The journal of one package. Names are BLOBs: they are bytes. Rows keep the order of recording.
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS file (
    row              INTEGER PRIMARY KEY,
    id               BLOB NOT NULL UNIQUE,
    path             BLOB NOT NULL,
    original         BLOB NOT NULL,
    use              TEXT NOT NULL,
    size_bytes       INTEGER NOT NULL,
    digest_algorithm TEXT,
    digest           TEXT,
    digest_at        TEXT,
    modified_at      TEXT,
    format_name      TEXT,
    format_version   TEXT,
    puid             TEXT,
    mime             TEXT,
    derived_from     BLOB,
    label            TEXT NOT NULL,
    removed          INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS file_path ON file (path) WHERE removed = 0;
CREATE INDEX IF NOT EXISTS file_derived ON file (derived_from) WHERE derived_from IS NOT NULL;
CREATE INDEX IF NOT EXISTS file_original ON file (original);

CREATE TABLE IF NOT EXISTS directory (
    row      INTEGER PRIMARY KEY,
    id       BLOB,
    path     BLOB NOT NULL,
    original BLOB NOT NULL,
    removed  INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS directory_path ON directory (path) WHERE removed = 0;
CREATE INDEX IF NOT EXISTS directory_original ON directory (original);

-- Digests besides the file's own, calculated in the same read because a manifest asks for them.
CREATE TABLE IF NOT EXISTS digest (
    file      BLOB NOT NULL,
    algorithm TEXT NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (file, algorithm)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS event (
    row     INTEGER PRIMARY KEY,
    object  BLOB NOT NULL,
    id      BLOB NOT NULL,
    type    TEXT NOT NULL,
    at      TEXT NOT NULL,
    detail  TEXT NOT NULL,
    outcome TEXT NOT NULL,
    note    TEXT NOT NULL,
    programs TEXT NOT NULL DEFAULT '', -- JSON: [[name, version], ...]
    agents  TEXT NOT NULL DEFAULT '', -- JSON: [[identifierType, identifierValue, role], ...]; empty: the package's own
    said_at TEXT NOT NULL DEFAULT '' -- the time in the words of whoever recorded it
);
CREATE INDEX IF NOT EXISTS event_imported ON event (type) WHERE agents <> '';
CREATE INDEX IF NOT EXISTS event_object ON event (object);

CREATE TABLE IF NOT EXISTS extension (
    row  INTEGER PRIMARY KEY,
    file BLOB NOT NULL,
    tool TEXT NOT NULL,
    xml  BLOB NOT NULL -- zlib
);
CREATE INDEX IF NOT EXISTS extension_file ON extension (file);

CREATE TABLE IF NOT EXISTS description (
    row        INTEGER PRIMARY KEY,
    target     BLOB NOT NULL,
    kind       TEXT NOT NULL,
    pairs      TEXT NOT NULL, -- JSON: [[element, value], ...]
    section    TEXT NOT NULL,
    xml        BLOB NOT NULL, -- zlib
    reference  BLOB,
    status     TEXT NOT NULL,
    created_at TEXT,
    "group"    TEXT NOT NULL,
    standard   INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS description_target ON description (target);

CREATE TABLE IF NOT EXISTS rights (
    row       INTEGER PRIMARY KEY,
    object    BLOB NOT NULL,
    id        BLOB NOT NULL,
    statement TEXT NOT NULL, -- JSON: the statement without its acts
    act       TEXT NOT NULL, -- JSON: one of its acts; empty: none
    UNIQUE (object, id, act) -- said once
);

CREATE TABLE IF NOT EXISTS identifier (
    row    INTEGER PRIMARY KEY,
    object BLOB NOT NULL,
    type   TEXT NOT NULL,
    value  TEXT NOT NULL,
    UNIQUE (object, type, value) -- said once
);

CREATE TABLE IF NOT EXISTS warning (
    row    INTEGER PRIMARY KEY,
    code   TEXT NOT NULL,
    detail TEXT NOT NULL,
    path   BLOB NOT NULL,
    link   TEXT NOT NULL,
    UNIQUE (code, detail, path, link) -- said once
);

CREATE TABLE IF NOT EXISTS agent (
    row             INTEGER PRIMARY KEY,
    identifier_type TEXT NOT NULL,
    identifier      TEXT NOT NULL,
    name            TEXT NOT NULL,
    type            TEXT NOT NULL,
    version         TEXT NOT NULL DEFAULT '',
    UNIQUE (identifier_type, identifier)
);

-- Agents of events and rights that others recorded.
CREATE TABLE IF NOT EXISTS linked_agent (
    identifier_type TEXT NOT NULL,
    identifier      TEXT NOT NULL,
    name            TEXT NOT NULL,
    type            TEXT NOT NULL,
    version         TEXT NOT NULL,
    PRIMARY KEY (identifier_type, identifier)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS tool (
    name     TEXT NOT NULL,
    version  TEXT NOT NULL,
    used_for TEXT NOT NULL,
    PRIMARY KEY (name, version, used_for)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS job (
    row         INTEGER PRIMARY KEY,
    link        TEXT NOT NULL,
    name        TEXT NOT NULL,
    execute     TEXT NOT NULL,
    started_at  TEXT NOT NULL,
    ended_at    TEXT,
    exit_code   INTEGER,
    cursor      INTEGER NOT NULL DEFAULT 0,
    files_done  INTEGER NOT NULL DEFAULT 0,
    seconds     REAL NOT NULL DEFAULT 0
);

CREATE TABLE IF NOT EXISTS rule_use ( -- how often rules of the format policy registry were followed
    rule     TEXT NOT NULL,
    command  TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    okay     INTEGER NOT NULL,
    PRIMARY KEY (rule, command)
) WITHOUT ROWID;
