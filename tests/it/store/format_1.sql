-- A store as programs of format 1 made it, with something in each table.
PRAGMA auto_vacuum = incremental;
PRAGMA application_id = 0x5543536B;
CREATE TABLE checkpoints (
    source TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (source, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE buffer (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    size INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    origin_key TEXT, origin_position INTEGER, place TEXT,
    transport_id TEXT, fault TEXT,
    meta BLOB, body BLOB NOT NULL
) STRICT;
CREATE INDEX buffer_by_sink ON buffer (sink, seq, size);

CREATE TABLE intake (
    sink TEXT NOT NULL, origin_key TEXT NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (sink, origin_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE handed (sink TEXT NOT NULL PRIMARY KEY, up_to INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL,
    rule TEXT, field TEXT, place TEXT, transport_id TEXT,
    status INTEGER, response TEXT, attempts INTEGER NOT NULL,
    replays INTEGER NOT NULL DEFAULT 0,
    call TEXT, meta BLOB, record BLOB NOT NULL
) STRICT;
CREATE INDEX dead_letters_by_reason ON dead_letters (sink, reason);

CREATE TABLE seen (
    sink TEXT NOT NULL, message_key TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (sink, message_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX seen_by_age ON seen (sink, at);

CREATE TABLE cache (
    sink TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (sink, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_by_age ON cache (sink, at);

INSERT INTO checkpoints VALUES ('app', 'k', 'v');
INSERT INTO buffer (sink, size, received_at, origin_key, origin_position, place, body) VALUES
    ('crm', 77, 1767225600000000, 'f', 1, 'f:1', CAST('{"n":1}' AS BLOB)),
    ('crm', 77, 1767225600000000, 'f', 2, 'f:2', CAST('{"n":2}' AS BLOB)),
    ('crm', 77, 1767225600000000, 'f', 3, 'f:3', CAST('{"n":3}' AS BLOB));
INSERT INTO intake VALUES ('crm', 'f', 3);
INSERT INTO handed VALUES ('crm', 2), ('other', 1000);
INSERT INTO dead_letters (sink, at, reason, detail, attempts, record)
    VALUES ('crm', 1767225600000000, 'status_400', 'a sentence', 1, CAST('{"d":1}' AS BLOB));
INSERT INTO seen VALUES ('crm', 'track:m-1', 1767225600000000);
INSERT INTO cache VALUES ('crm', 'u:u1', '{"id":7}', 1767225600000000);
