-- What the emulator knows. Times are microseconds since 1970, UTC. `profile`, `value` and `data`
-- are JSON. `kind` is an attribute's content type: 'clientuser' or 'company' for owners of tags.

CREATE TABLE IF NOT EXISTS users (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    custom_id   TEXT UNIQUE,
    user_key    TEXT NOT NULL UNIQUE,
    profile     TEXT NOT NULL,
    page_views  INTEGER NOT NULL DEFAULT 0,
    first_seen  INTEGER,
    last_seen   INTEGER,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS users_email ON users (json_extract(profile, '$.email'));
CREATE INDEX IF NOT EXISTS users_phone ON users (json_extract(profile, '$.phone_number'));

CREATE TABLE IF NOT EXISTS companies (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    custom_id   TEXT UNIQUE,
    profile     TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS members (
    company      INTEGER NOT NULL,
    user         INTEGER NOT NULL,
    member_since INTEGER NOT NULL,
    PRIMARY KEY (company, user)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS members_user ON members (user);

CREATE TABLE IF NOT EXISTS tags (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE IF NOT EXISTS tagged (
    kind  TEXT NOT NULL,
    owner INTEGER NOT NULL,
    tag   INTEGER NOT NULL,
    PRIMARY KEY (kind, owner, tag)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS attributes (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT NOT NULL,
    name_std     TEXT NOT NULL,
    value_type   TEXT NOT NULL,
    content_type TEXT NOT NULL,
    choices      TEXT,
    multiple     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (content_type, name_std)
);
CREATE INDEX IF NOT EXISTS attributes_name ON attributes (content_type, name);

-- An attribute belongs to one content type, so (owner, attribute) names a user or a company.
CREATE TABLE IF NOT EXISTS attribute_values (
    owner     INTEGER NOT NULL,
    attribute INTEGER NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (owner, attribute)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS event_definitions (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE IF NOT EXISTS event_properties (
    definition INTEGER NOT NULL,
    name       TEXT NOT NULL,
    value_type TEXT NOT NULL,
    PRIMARY KEY (definition, name)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    user       INTEGER NOT NULL,
    definition INTEGER NOT NULL,
    timestamp  INTEGER NOT NULL,
    data       TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_user ON events (user);

CREATE TABLE IF NOT EXISTS page_views (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    user        INTEGER NOT NULL,
    page_domain TEXT NOT NULL,
    page_path   TEXT NOT NULL,
    timestamp   INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS page_views_user ON page_views (user);
