//! Keys that other programs, or older files, use for something that has another name here, and
//! source types that exist elsewhere.

use super::fault::{ConfigPath, Segment};
use crate::suggest::nearest;

/// The tables in which a foreign key is recognised.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    Sink,
    Request,
    Buffer,
    Source,
    Decoding,
    Rule,
    Field,
    Root,
}

/// The foreign key, its table, the key that is meant (empty: there is none), and why.
const FOREIGN: &[(&str, Within, &str, &str)] = &[
    ("host", Within::Sink, "endpoint", ""),
    ("url", Within::Sink, "endpoint", ""),
    ("uri", Within::Sink, "endpoint", ""),
    ("base_url", Within::Sink, "endpoint", ""),
    ("domain", Within::Sink, "app", ""),
    ("subdomain", Within::Sink, "app", ""),
    ("key", Within::Sink, "api_key", ""),
    ("token", Within::Sink, "api_key", ""),
    ("apiKey", Within::Sink, "api_key", ""),
    ("default_api_key", Within::Sink, "api_key", ""),
    ("input", Within::Sink, "inputs", ""),
    ("source", Within::Sink, "inputs", ""),
    ("rules", Within::Sink, "mapping", ""),
    ("healthchecks", Within::Sink, "healthcheck", ""),
    (
        "batch",
        Within::Sink,
        "",
        "User.com has no batch endpoint: identifies are folded by `delivery.fold` instead",
    ),
    ("encoding", Within::Sink, "", "what is sent is User.com's own JSON; shape it with `mapping`"),
    ("compression", Within::Sink, "", "User.com takes plain JSON only"),
    ("acknowledgements", Within::Sink, "", "records are always acknowledged end to end"),
    ("retry_max_duration", Within::Request, "retry_max_duration_secs", ""),
    ("retry_initial_backoff", Within::Request, "retry_initial_backoff_secs", ""),
    ("retry_backoff_secs", Within::Request, "retry_initial_backoff_secs", ""),
    ("retry_max_backoff_secs", Within::Request, "retry_max_duration_secs", ""),
    ("max_retries", Within::Request, "retry_attempts", ""),
    ("retries", Within::Request, "retry_attempts", ""),
    ("in_flight_limit", Within::Request, "concurrency", ""),
    ("rate_limit", Within::Request, "rate_limit_num", ""),
    ("retry_jitter_mode", Within::Request, "", "jitter is always full"),
    (
        "adaptive_concurrency",
        Within::Request,
        "",
        "the adaptive limit needs no settings; write `concurrency = \"adaptive\"`",
    ),
    ("kind", Within::Buffer, "type", ""),
    ("max_bytes", Within::Buffer, "max_size", ""),
    ("path", Within::Source, "include", ""),
    ("paths", Within::Source, "include", ""),
    ("files", Within::Source, "include", ""),
    ("codec", Within::Source, "decoding.codec", ""),
    ("start_at_beginning", Within::Source, "read_from", ""),
    ("fingerprint", Within::Source, "", "a file is known by its identity; nothing is to be set"),
    ("regex", Within::Decoding, "pattern", ""),
    ("type", Within::Rule, "call", ""),
    ("if", Within::Rule, "when", ""),
    ("condition", Within::Rule, "when", ""),
    ("from", Within::Field, "path", ""),
    ("const", Within::Field, "value", ""),
    ("literal", Within::Field, "value", ""),
    ("type", Within::Field, "as", ""),
    ("exclude", Within::Field, "except", ""),
    (
        "transforms",
        Within::Root,
        "",
        "there are no transforms between sources and sinks; shape records with the sink's `mapping`",
    ),
    ("source", Within::Root, "sources", ""),
    ("sink", Within::Root, "sinks", ""),
    ("enrichment_tables", Within::Root, "", "use `map` on a field to replace values"),
];

/// A key that is known from elsewhere.
pub(crate) enum Foreign {
    /// It has this name here.
    Called(&'static str),
    /// There is no equivalent here, for this reason.
    Absent(&'static str),
}

/// What a key means elsewhere. `table` is the path of its table.
pub(crate) fn foreign_key(table: &ConfigPath, key: &str) -> Option<Foreign> {
    let within = place(table)?;
    let (_, _, meant, why) =
        FOREIGN.iter().find(|(name, place, ..)| *name == key && *place == within)?;
    Some(match meant.is_empty() {
        false => Foreign::Called(meant),
        true => Foreign::Absent(why),
    })
}

/// The known key that an unknown one most likely means.
pub(crate) fn meant<'a>(table: &ConfigPath, key: &str, known: &[&'a str]) -> Option<&'a str> {
    match foreign_key(table, key) {
        Some(Foreign::Called(name)) => known.iter().copied().find(|known| *known == name),
        Some(Foreign::Absent(_)) => None,
        None => nearest(key, known.iter().copied()),
    }
}

fn place(table: &ConfigPath) -> Option<Within> {
    let keys: Vec<_> = table
        .0
        .iter()
        .map(|step| match step {
            Segment::Key(key) => key.as_str(),
            Segment::Index(_) => "[]",
        })
        .collect();
    Some(match keys.as_slice() {
        [] => Within::Root,
        ["sources", _] => Within::Source,
        ["sources", _, "decoding"] | ["sources", _, "decoding", "[]"] => Within::Decoding,
        ["sinks", _] => Within::Sink,
        ["sinks", _, "request"] => Within::Request,
        ["sinks", _, "buffer"] => Within::Buffer,
        ["sinks", _, "mapping", "[]"] => Within::Rule,
        ["sinks", _, "mapping", "[]", "fields", ..] => Within::Field,
        _ => return None,
    })
}

/// Why a known source type is not in this build, if it is known.
pub(crate) fn absent_source(name: &str) -> Option<&'static str> {
    match name {
        "kafka" => Some("build with the cargo feature `kafka`"),
        "vector" => Some("build with the cargo feature `vector`"),
        "fluvio" => Some("build with the cargo feature `fluvio`"),
        _ => None,
    }
}
