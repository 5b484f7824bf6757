//! Tries records against pipeline files, without network: for the page, and for the command
//! `playground`.
//!
//! # Invariants
//! No variable and no file of the machine is read: `${…}` becomes a placeholder. Nothing is sent or
//! stored.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::dry_run::{DryRun, DryRunReport};
use super::test_text::test_text;
use crate::api::{
    Playground, PlaygroundInput, PlaygroundReport, PlaygroundText, TapView, TriedRecord,
    TriedRequest, TriedRule,
};
use crate::config::fault::{ConfigPath, Fault};
use crate::config::sink::UsercomSink;
use crate::config::source::Decoding;
use crate::config::{Environment, Loaded, Pipeline, SinkConfig, SourceText, Style, load};
use crate::deliver::Request;
use crate::record::Record;
use crate::sink::SinkFactory;
use crate::source::decode::{Decoded, Decoder};

/// Records of one input that are tried.
const MAX_RECORDS: usize = 50;

/// Inputs tried at once.
const MAX_CONCURRENT_RUNS: usize = 2;

/// The file that is shown where none is given.
const EXAMPLE: &str = include_str!("../../examples/01-signup.toml");

/// The record that is shown with it.
const EXAMPLE_RECORD: &str = r#"{ "kind": "signup", "ts": 1767225600, "user": { "id": "u1", "email": " Ann@Example.com ", "first": "Ann", "last": "Lee" } }"#;

/// Values for `${…}` that are no secret of this machine.
struct Placeholders;

impl Environment for Placeholders {
    fn var(&self, name: &str) -> Option<String> {
        let name = name.to_ascii_uppercase();
        let is = |word| name.contains(word);
        Some(
            if is("ENDPOINT") || is("URL") {
                "http://127.0.0.1:9/api/public/"
            } else if is("ADDR") || is("LISTEN") {
                "127.0.0.1:0"
            } else {
                "playground-value"
            }
            .to_owned(),
        )
    }

    fn read_file(&self, _: &Path) -> std::io::Result<String> {
        Ok("playground-value".to_owned())
    }
}

/// The playground.
pub struct DryPlayground {
    files: Arc<RwLock<Vec<PlaygroundText>>>,
    places: Semaphore,
}

impl DryPlayground {
    /// A playground that begins with these files, or with an example if there are none.
    pub fn new(files: Arc<RwLock<Vec<PlaygroundText>>>) -> Self {
        Self { files, places: Semaphore::new(MAX_CONCURRENT_RUNS) }
    }
}

fn faults(at: &ConfigPath, sink: &UsercomSink) -> Vec<Fault> {
    sink.validate(at).err().unwrap_or_default()
}

#[async_trait]
impl Playground for DryPlayground {
    fn files(&self) -> Vec<PlaygroundText> {
        let files = self.files.read();
        match files.is_empty() {
            true => {
                vec![PlaygroundText { name: "pipeline.toml".to_owned(), text: EXAMPLE.to_owned() }]
            }
            false => files.clone(),
        }
    }

    fn records(&self) -> String {
        EXAMPLE_RECORD.to_owned()
    }

    async fn try_out(&self, input: PlaygroundInput) -> PlaygroundReport {
        let Ok(_place) = self.places.acquire().await else {
            return PlaygroundReport::default();
        };
        let texts: Vec<_> =
            input.files.iter().map(|file| SourceText::new(&file.name, &file.text)).collect();
        // Compiling a table takes time; other tasks continue meanwhile.
        let loaded = tokio::task::spawn_blocking(move || load(&texts, &Placeholders, &faults));
        let loaded = match loaded.await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(report)) => return with_faults(report.render(Style::Plain)),
            Err(error) => return with_faults(error.to_string()),
        };
        try_records(&loaded, &input).await.unwrap_or_else(with_faults)
    }
}

fn with_faults(text: String) -> PlaygroundReport {
    PlaygroundReport { faults: Some(text), ..PlaygroundReport::default() }
}

async fn try_records(loaded: &Loaded, input: &PlaygroundInput) -> Result<PlaygroundReport, String> {
    let pipeline = &loaded.pipeline;
    let sinks: Vec<String> = pipeline.sinks.keys().cloned().collect();
    let wanted = sinks.iter().find(|name| **name == input.sink).or(sinks.first());
    let Some(name) = wanted.cloned() else {
        return Ok(PlaygroundReport::default());
    };
    let SinkConfig::Usercom(sink) = &pipeline.sinks[&name];
    let dry_run = DryRun::new(&name, sink).map_err(|faults| {
        faults.into_iter().map(|fault| fault.message).collect::<Vec<_>>().join("\n")
    })?;
    let dry_run = dry_run.in_zone(pipeline.timezone_of(&sink.inputs));
    let mut report = PlaygroundReport { sinks, ..PlaygroundReport::default() };
    let decoded = decode(pipeline, &sink.inputs, &input.records)?;
    report.left_out = decoded.len().saturating_sub(MAX_RECORDS);
    for one in decoded.into_iter().take(MAX_RECORDS) {
        let text = String::from_utf8_lossy(&one.body).into_owned();
        let tried = match one.fault {
            Some(why) => TriedRecord { record: text, errors: vec![why], ..TriedRecord::default() },
            None => {
                let mut record = Record::new(one.body);
                record.meta = one.meta;
                tried(text, dry_run.run_record(record).await)
            }
        };
        report.tests += &test_text(&name, &tried, report.records.len() + 1);
        report.records.push(tried);
    }
    Ok(report)
}

/// The records of a text, as the sink's first source would read them. JSON values may span lines:
/// people paste them so.
fn decode(pipeline: &Pipeline, inputs: &[String], text: &str) -> Result<Vec<Decoded>, String> {
    let source = inputs.iter().find_map(|name| pipeline.sources.get(name));
    let decoder = match source {
        Some(source) => crate::source::decoder(source)?,
        None => Decoder::new(&Decoding::default())?,
    };
    let text = match serde_json::from_str::<Value>(text) {
        Ok(value @ Value::Object(_)) => value.to_string(),
        _ => text.to_owned(),
    };
    Ok(decoder.lines(&Bytes::from(text)))
}

fn tried(record: String, report: DryRunReport) -> TriedRecord {
    let rules = report.rules.into_iter();
    TriedRecord {
        record,
        rules: rules
            .map(|rule| TriedRule { name: rule.name, fired: rule.fired, why: rule.why })
            .collect(),
        calls: report.calls,
        requests: report.requests.iter().map(tried_request).collect(),
        notes: report.notes,
        errors: report.errors,
    }
}

fn tried_request(request: &Request) -> TriedRequest {
    let body = request.body.as_deref().map(|body| {
        serde_json::from_slice(body)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(body).into_owned()))
    });
    TriedRequest {
        method: request.method.as_str().to_owned(),
        path: request.path.to_string(),
        route: request.route.to_owned(),
        body,
    }
}

/// Shows what tapped records become, with the mapping that runs.
pub(super) struct DryTap {
    pub(super) pipeline: Arc<RwLock<Arc<Pipeline>>>,
}

#[async_trait]
impl TapView for DryTap {
    async fn view(&self, sink: &str, record: Record) -> Option<TriedRecord> {
        let pipeline = Arc::clone(&*self.pipeline.read());
        let SinkConfig::Usercom(config) = pipeline.sinks.get(sink)?;
        // At most a few a second are asked for, so the table is compiled again each time: then it
        // is always the present one.
        let dry_run = DryRun::new(sink, config).ok()?;
        let text = String::from_utf8_lossy(&record.body).into_owned();
        Some(tried(text, dry_run.run_record(record).await))
    }
}
