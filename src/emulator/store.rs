//! The stored state: the SQLite connection, the request log, and the counts.
//!
//! # Invariants
//! The effect of a request and its log entry are made under one lock, so the log has the order of
//! the effects.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::context::{Ignored, RouteContext};
use super::reply::{RouteError, RouteReply, RouteResult};
use super::typing::iso;

/// Requests in the log; the oldest are removed first.
const MAX_LOG_ENTRIES: usize = 200_000;

/// Prepared statements in the cache: more than the routes have.
const STATEMENT_CACHE_CAPACITY: usize = 256;

const TABLES: [&str; 12] = [
    "users",
    "companies",
    "members",
    "tags",
    "tagged",
    "attributes",
    "attribute_values",
    "event_definitions",
    "event_properties",
    "events",
    "page_views",
    "sqlite_sequence",
];

/// One request in the log.
#[derive(Debug, Serialize)]
pub(super) struct LogEntry {
    seq: u64,
    time: String,
    method: String,
    /// Relative to the API's base path, with its query, as it was sent.
    path: String,
    /// The JSON body as sent; a string if it is not JSON; null if there is none.
    body: Option<Box<RawValue>>,
    /// 0 if no response was sent.
    status: u16,
    /// The injected fault, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
}

/// A request to be logged.
pub(super) struct LoggedRequest<'a> {
    pub(super) now: i64,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) body: &'a [u8],
    pub(super) status: u16,
    pub(super) route: &'static str,
    pub(super) fault: Option<&'static str>,
}

/// Counts since the start or the last reset.
#[derive(Debug, Default)]
struct RequestCounts {
    total: u64,
    routes: BTreeMap<String, u64>,
    statuses: BTreeMap<u16, u64>,
    ignored_attributes: u64,
    ignored_properties: u64,
    ignored_companies: u64,
}

/// State, request log and counts; used under a lock.
#[derive(Debug)]
pub(super) struct AccountStore {
    db: Connection,
    log: VecDeque<LogEntry>,
    /// Sequence number of the newest log entry.
    seq: u64,
    counts: RequestCounts,
}

impl AccountStore {
    /// Opens the file, or a store in memory.
    pub(super) fn open(path: Option<&Path>) -> rusqlite::Result<Self> {
        let db = match path {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        db.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
        // Without this SQLite prepares a cached statement again whenever a bound value changes.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        if path.is_some() {
            db.pragma_update(None, "journal_mode", "WAL")?;
        }
        db.pragma_update(None, "synchronous", "OFF")?;
        db.execute_batch(include_str!("schema.sql"))?;
        Ok(Self { db, log: VecDeque::new(), seq: 0, counts: RequestCounts::default() })
    }

    /// Whether nothing has been written yet.
    pub(super) fn is_empty(&self) -> rusqlite::Result<bool> {
        self.db.query_row(
            "SELECT NOT EXISTS (SELECT 1 FROM users) AND NOT EXISTS (SELECT 1 FROM attributes) \
             AND NOT EXISTS (SELECT 1 FROM companies) \
             AND NOT EXISTS (SELECT 1 FROM event_definitions)",
            [],
            |row| row.get(0),
        )
    }

    /// Runs a route in a transaction, which is committed only if the route succeeds.
    pub(super) fn run(
        &mut self,
        build: impl FnOnce(&Connection) -> RouteContext<'_>,
        route: fn(&RouteContext<'_>) -> RouteResult,
    ) -> RouteReply {
        match self.try_run(build, route) {
            Ok(reply) | Err(RouteError::Reply(reply)) => reply,
            Err(RouteError::Store(error)) => {
                tracing::error!(%error, "emulator: the store failed");
                RouteReply::detail(500, &format!("the emulator's store failed: {error}"))
            }
        }
    }

    /// As [`run`](Self::run), but returns the error instead of a response.
    pub(super) fn try_run(
        &mut self,
        build: impl FnOnce(&Connection) -> RouteContext<'_>,
        route: fn(&RouteContext<'_>) -> RouteResult,
    ) -> RouteResult {
        let transaction = self.db.transaction()?;
        let cx = build(&transaction);
        let reply = route(&cx)?;
        let ignored = cx.ignored;
        transaction.commit()?;
        self.counts.add(&ignored);
        Ok(reply)
    }

    /// Logs and counts one request.
    pub(super) fn record(&mut self, line: &LoggedRequest<'_>) {
        self.seq += 1;
        self.counts.total += 1;
        let route = format!("{} {}", line.method, line.route);
        *self.counts.routes.entry(route).or_default() += 1;
        *self.counts.statuses.entry(line.status).or_default() += 1;
        if self.log.len() == MAX_LOG_ENTRIES {
            self.log.pop_front();
        }
        self.log.push_back(LogEntry {
            seq: self.seq,
            time: iso(line.now),
            method: line.method.to_owned(),
            path: match line.query {
                Some(query) => format!("{}?{query}", line.path),
                None => line.path.to_owned(),
            },
            body: logged_body(line.body),
            status: line.status,
            fault: line.fault,
        });
    }

    /// The log after a sequence number, as a JSON array.
    pub(super) fn log_json(&self, since: u64) -> Result<Vec<u8>, serde_json::Error> {
        let entries: Vec<&LogEntry> = self.log.iter().filter(|entry| entry.seq > since).collect();
        serde_json::to_vec(&entries)
    }

    /// Counts of requests and of stored objects.
    pub(super) fn stats(&self) -> rusqlite::Result<Value> {
        let count = |table: &str| -> rusqlite::Result<i64> {
            self.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
        };
        let counts = &self.counts;
        Ok(json!({
            "total": counts.total,
            "routes": counts.routes,
            "statuses": counts.statuses,
            "users": count("users")?,
            "events": count("events")?,
            "page_views": count("page_views")?,
            "companies": count("companies")?,
            "memberships": count("members")?,
            "attributes": count("attributes")?,
            "ignored_attributes": counts.ignored_attributes,
            "ignored_properties": counts.ignored_properties,
            "ignored_companies": counts.ignored_companies,
        }))
    }

    /// Clears state, log and counts. Ids start again at 1.
    pub(super) fn reset(&mut self) -> rusqlite::Result<()> {
        let transaction = self.db.transaction()?;
        for table in TABLES {
            transaction.execute(&format!("DELETE FROM {table}"), [])?;
        }
        transaction.commit()?;
        self.log.clear();
        self.seq = 0;
        self.counts = RequestCounts::default();
        Ok(())
    }
}

impl RequestCounts {
    fn add(&mut self, ignored: &Ignored) {
        self.ignored_attributes += ignored.attributes.get();
        self.ignored_properties += ignored.properties.get();
        self.ignored_companies += ignored.companies.get();
    }
}

fn logged_body(body: &[u8]) -> Option<Box<RawValue>> {
    if body.is_empty() {
        return None;
    }
    serde_json::from_slice(body).or_else(|_| to_raw_value(&String::from_utf8_lossy(body))).ok()
}
