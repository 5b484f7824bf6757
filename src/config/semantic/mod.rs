//! Finds faults that a schema cannot express: unknown names, contradicting settings, invalid
//! patterns. Works on the parts of a file that could be deserialized.
//!
//! Sources feed sinks and nothing feeds a source, so inputs cannot form a cycle; a sink named as an
//! input is a fault of its own.

mod fluvio;
mod http;
mod kafka;
mod sink;
mod source;
mod vector;

use std::collections::HashSet;

use super::document::{Node, NodeKind};
use super::fault::{ConfigPath, Fault, Target};
use super::foreign_keys::meant;
use super::pipeline::{ExpectedRequest, SinkConfig, TestCase};
use super::recover::RecoveredParts;
use super::suggest::instead_behind;

/// Every such fault.
pub(crate) fn check(root: &Node, parts: &RecoveredParts) -> Vec<Fault> {
    let mut faults = FaultCollector::new(root);
    let sources = KnownNames::of(root, "sources");
    let sinks = KnownNames::of(root, "sinks");
    for name in sinks.list.iter().filter(|name| sources.contains(name)) {
        let path = ConfigPath::default().key("sinks").key(*name);
        let message = format!("`{name}` is the name of a source and of a sink");
        let help = "names are used in metrics and logs: give one of them another";
        faults.at("E0305", path, Target::Key, message, help);
    }
    listen(&mut faults);
    api(&mut faults);
    for (name, config) in &parts.sources {
        source::check(&mut faults, name, config);
    }
    source::only_one_stdin(&mut faults, parts);
    http::one_address_each(&mut faults, parts.sources.iter().map(|(name, config)| (name, config)));
    kafka::buffered_on_disk(&mut faults, parts);
    http::buffered_in_memory(&mut faults, parts);
    for recovered in &parts.sinks {
        let SinkConfig::Usercom(config) = &recovered.config;
        sink::check(&mut faults, &recovered.path(), config, &sources, &sinks);
    }
    // A mistyped input makes its source unread; that is reported once.
    if faults.out.iter().all(|fault| fault.code != "E0301") {
        unread_sources(&mut faults, &sources.list, &sinks.list);
    }
    for (index, case) in &parts.tests {
        test(&mut faults, *index, case, &sinks);
        tested_text(&mut faults, *index, case, &sources);
    }
    faults.out
}

/// The names under a top-level key, whether or not their values could be deserialized.
struct KnownNames<'a> {
    /// In the file's order.
    list: Vec<&'a str>,
    set: HashSet<&'a str>,
}

impl<'a> KnownNames<'a> {
    fn of(root: &'a Node, key: &str) -> Self {
        let entries = root.get(key).and_then(Node::table);
        let names = entries.into_iter().flat_map(|entries| entries.keys());
        let list: Vec<_> = names.map(String::as_str).collect();
        Self { set: list.iter().copied().collect(), list }
    }

    fn contains(&self, name: &str) -> bool {
        self.set.contains(name)
    }
}

/// Collects faults about a tree.
struct FaultCollector<'a> {
    root: &'a Node,
    out: Vec<Fault>,
}

impl<'a> FaultCollector<'a> {
    fn new(root: &'a Node) -> Self {
        Self { root, out: Vec::new() }
    }

    /// Whether the file has a value at a path. Null counts as absent.
    fn has(&self, path: &ConfigPath) -> bool {
        let node = self.root.at(path);
        node.is_some_and(|node| !matches!(node.kind, NodeKind::Null))
    }

    /// Whether the file has a value under a key, or under a mistyped form of that key, which does
    /// not also count as missing.
    fn has_or_means(&self, table: &ConfigPath, key: &str) -> bool {
        let entries = self.root.at(table).and_then(Node::table);
        entries.is_some_and(|entries| {
            entries.keys().any(|other| {
                let named = other == key || meant(table, other, &[key]).is_some();
                named && self.has(&table.key(other))
            })
        })
    }

    fn instead(&self, word: &str, known: &KnownNames<'_>, what: &str) -> String {
        instead_behind(self.out.len(), word, &known.list, what)
    }

    fn at(
        &mut self,
        code: &'static str,
        path: ConfigPath,
        target: Target,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.out.push(Fault {
            code,
            path,
            target,
            message: message.into(),
            help: Some(help.into()),
        });
    }
}

fn listen(faults: &mut FaultCollector<'_>) {
    let path = ConfigPath::default().key("api").key("listen");
    let Some(text) = faults.root.at(&path).and_then(Node::text) else {
        return;
    };
    let Ok(address) = text.value.parse::<std::net::SocketAddr>() else {
        let message = format!("`{}` is not an IP address and port", text.written);
        let help = "write both: `127.0.0.1:8686`, or `0.0.0.0:8686` for every interface";
        faults.at("E0314", path, Target::Value, message, help);
        return;
    };
    let api = ConfigPath::default().key("api");
    if !address.ip().to_canonical().is_loopback() && !faults.has_or_means(&api, "token") {
        let message = format!(
            "`{}` is reached from other machines, and `api.token` is not set: everybody could read \
             and replay the dead letters",
            text.written
        );
        let help = "add `token = \"${USERCOM_SINK_TOKEN}\"` to `[api]`, or listen on `127.0.0.1`";
        faults.at("E0380", path, Target::Value, message, help);
    }
}

/// The shortest token: what can be typed can also be tried.
const MIN_TOKEN_CHARS: usize = 12;

fn api(faults: &mut FaultCollector<'_>) {
    let api = ConfigPath::default().key("api");
    let root = faults.root;
    let path = api.key("token");
    if let Some(token) = root.at(&path).and_then(Node::text)
        && token.value.trim().chars().count() < MIN_TOKEN_CHARS
    {
        let message = format!("`api.token` has fewer than {MIN_TOKEN_CHARS} characters");
        let help = "make one that cannot be guessed: `openssl rand -hex 24`";
        faults.at("E0381", path, Target::Value, message, help);
    }
    let Some(NodeKind::Array(hosts)) = root.at(&api.key("hosts")).map(|node| &node.kind) else {
        return;
    };
    for (index, host) in hosts.iter().enumerate() {
        let Some(host) = host.text() else { continue };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.value.is_empty() || !host.value.chars().all(allowed) {
            let message = format!("`{}` is not a host name", host.written);
            let help = "write only the name, without scheme, port and path: `status.example.com`";
            let path = api.key("hosts").index(index);
            faults.at("E0382", path, Target::Value, message, help);
        }
    }
}

/// Sources that no sink names. Uses the tree, so that a sink with other faults still counts.
fn unread_sources(faults: &mut FaultCollector<'_>, sources: &[&str], sinks: &[&str]) {
    let root = faults.root;
    let inputs_of = |sink: &&str| {
        let path = ConfigPath::default().key("sinks").key(*sink).key("inputs");
        match &root.at(&path)?.kind {
            NodeKind::Array(items) => Some(items),
            _ => None,
        }
    };
    // Unless every list of inputs is known, it is unknown which sources are read.
    let Some(lists) = sinks.iter().map(inputs_of).collect::<Option<Vec<_>>>() else {
        return;
    };
    let read: HashSet<_> = lists
        .into_iter()
        .flatten()
        .filter_map(Node::text)
        .map(|text| text.value.as_str())
        .collect();
    if sinks.is_empty() {
        return;
    }
    for name in sources.iter().filter(|name| !read.contains(*name)) {
        let path = ConfigPath::default().key("sources").key(*name);
        let message = format!("no sink reads source `{name}`");
        let help = format!("add it to the `inputs` of a sink: `inputs = [\"{name}\"]`");
        faults.at("W0301", path, Target::Key, message, help);
    }
}

fn is_empty_list(faults: &FaultCollector<'_>, path: &ConfigPath) -> bool {
    let node = faults.root.at(path);
    node.is_some_and(|node| matches!(&node.kind, NodeKind::Array(items) if items.is_empty()))
}

/// The input of a test: a record, or a text that a source decodes.
fn tested_text(
    faults: &mut FaultCollector<'_>,
    index: usize,
    case: &TestCase,
    sources: &KnownNames<'_>,
) {
    let path = ConfigPath::default().key("tests").index(index);
    let written = |key: &str| faults.root.at(&path.key(key)).is_some();
    match (written("record"), written("line")) {
        (false, false) => {
            let message = format!("missing key `record` in `{path}`");
            let help = "write `record = { … }`, or `line = '…'` to test the decoding as well";
            faults.at("E0102", path.key("record"), Target::Value, message, help);
        }
        (true, true) => {
            let message = format!("test `{}` has a `record` and a `line`", case.name);
            let help = "leave one of them out: `line` is decoded, `record` is what decoding makes";
            faults.at("E0373", path.key("line"), Target::Key, message, help);
        }
        _ => {}
    }
    let Some(source) = &case.source else {
        return;
    };
    if case.line.is_none() && !faults.has(&path.key("line")) {
        let message = "`source` is without effect: the test has no `line` to decode";
        let help = "write `line = '…'` in place of `record`, or leave `source` out";
        faults.at("E0373", path.key("source"), Target::Key, message, help);
    }
    if !sources.contains(source) {
        let message = format!("test `{}` names an unknown source `{source}`", case.name);
        let help = faults.instead(source, sources, "the sources are");
        faults.at("E0374", path.key("source"), Target::Value, message, help);
    }
}

fn test(faults: &mut FaultCollector<'_>, index: usize, case: &TestCase, sinks: &KnownNames<'_>) {
    let path = ConfigPath::default().key("tests").index(index);
    if !sinks.contains(&case.sink) {
        let message = format!("test `{}` names an unknown sink `{}`", case.name, case.sink);
        let help = faults.instead(&case.sink, sinks, "the sinks are");
        faults.at("E0316", path.key("sink"), Target::Value, message, help);
    }
    let expects_calls = !case.calls.is_empty() || !case.requests.is_empty();
    // A value that could not be deserialized has a fault of its own.
    let said = ["calls", "requests", "outcome"]
        .into_iter()
        .any(|key| faults.has(&path.key(key)) && !is_empty_list(faults, &path.key(key)));
    if !said {
        let message = format!("test `{}` expects nothing", case.name);
        let help = "add `[[tests.calls]]`, `[[tests.requests]]` or `outcome = \"unmatched\"`";
        faults.at("E0318", path.clone(), Target::Value, message, help);
    }
    if expects_calls && case.outcome.is_some() {
        let message = format!("test `{}` expects calls and that there are none", case.name);
        let help = "`outcome` is for a record that makes no call; leave one of them out";
        faults.at("E0319", path.key("outcome"), Target::Key, message, help);
    }
    for (number, request) in case.requests.iter().enumerate() {
        let ExpectedRequest { method, path: at, body } = request;
        if method.is_none() && at.is_none() && body.is_none() {
            let message = "an expected request without conditions";
            let help = "give `method`, `path` or `body`";
            let path = path.key("requests").index(number);
            faults.at("E0318", path, Target::Value, message, help);
        }
    }
    for (number, call) in case.calls.iter().enumerate() {
        if let Some(moment) = &call.timestamp
            && moment.parse::<jiff::Timestamp>().is_err()
        {
            let path = path.key("calls").index(number).key("timestamp");
            let message = format!("`{moment}` is not a time in the form of RFC 3339");
            let help = "with date, time and zone: `2026-01-01T00:00:00Z`";
            faults.at("E0320", path, Target::Value, message, help);
        }
    }
}
