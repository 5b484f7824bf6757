-- The store of a program of format 3 that was killed while it delivered: everything in it was written
-- by that program, except the row of `dispatched`. The test replaces @FILE@, @ID@ (device:inode) and
-- @NOW@ (seconds since 1970).
PRAGMA auto_vacuum = incremental;
PRAGMA application_id = 0x5543536B;
CREATE TABLE checkpoints (
    source TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (source, key)
) STRICT, WITHOUT ROWID;
INSERT INTO checkpoints VALUES('app','@ID@','{"generation":0,"position":446,"lines":7,"head":{"length":256,"sha256":"a1627d9835207437d243193d"},"path":"@FILE@","content":{"length":446,"chain":"","sha256":"444f40599edd4357e7d5a127"},"versions":[{"length":446,"sha256":"444f40599edd4357e7d5a127"}]}');
INSERT INTO checkpoints VALUES('app','generation','1');
CREATE TABLE buffer (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    size INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    origin_key TEXT, origin_position INTEGER, place TEXT,
    transport_id TEXT, fault TEXT,
    meta BLOB, body BLOB NOT NULL
, happened_at INTEGER, maybe_sent INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO buffer VALUES(6,'crm',164,@NOW@597550,'app:@ID@:0',382,'@FILE@:6',NULL,NULL,NULL,X'7b2274797065223a22747261636b222c226d6573736167654964223a226d2d35222c22757365724964223a227531222c226576656e74223a2250616964227d',NULL,0);
INSERT INTO buffer VALUES(7,'crm',164,@NOW@597550,'app:@ID@:0',446,'@FILE@:7',NULL,NULL,NULL,X'7b2274797065223a22747261636b222c226d6573736167654964223a226d2d36222c22757365724964223a227531222c226576656e74223a224c656674227d',NULL,0);
CREATE TABLE intake (
    sink TEXT NOT NULL, origin_key TEXT NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (sink, origin_key)
) STRICT, WITHOUT ROWID;
INSERT INTO intake VALUES('crm','app:@ID@:0',446);
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
INSERT INTO dead_letters VALUES(1,'crm',@NOW@314489,'no_event','no_event, rule `preset segment`: the track call has no event name','preset segment',NULL,'@FILE@:4',NULL,NULL,NULL,0,0,NULL,NULL,X'7b2274797065223a22747261636b222c226d6573736167654964223a226d2d34222c22757365724964223a227531227d');
INSERT INTO dead_letters VALUES(2,'crm',@NOW@314494,'undecodable','not valid JSON at column 2: expected ident',NULL,NULL,'@FILE@:5',NULL,NULL,NULL,0,0,NULL,NULL,X'6e6f74204a534f4e');
CREATE TABLE seen (
    sink TEXT NOT NULL, message_key TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (sink, message_key)
) STRICT, WITHOUT ROWID;
INSERT INTO seen VALUES('crm','group:m-3',@NOW@326438);
INSERT INTO seen VALUES('crm','identify:m-1',@NOW@326438);
INSERT INTO seen VALUES('crm','track:m-2',@NOW@326438);
CREATE TABLE cache (
    sink TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (sink, key)
) STRICT, WITHOUT ROWID;
INSERT INTO cache VALUES('crm','g:g1','{"id":1,"fields":"jPMGawEAAABzNtGGlA85MQ"}',@NOW@327214);
INSERT INTO cache VALUES('crm','n:attributes','[@NOW@]',@NOW@327214);
INSERT INTO cache VALUES('crm','u:u1','{"id":1,"fields":"jPMGawIAAADkduUjPtBSkDxstkAMz2He","companies":[["g1",@NOW@]]}',@NOW@327214);
CREATE TABLE dispatched (
    sink TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (sink, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX buffer_by_sink ON buffer (sink, seq, size);
CREATE INDEX dead_letters_by_reason ON dead_letters (sink, reason);
CREATE INDEX seen_by_age ON seen (sink, at);
CREATE INDEX cache_by_age ON cache (sink, at);
INSERT INTO dispatched VALUES('crm',6);
PRAGMA user_version = 3;
