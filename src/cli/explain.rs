//! `explain`: dry-runs records through the mapping, without network.

use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::load::{ConfigFiles, unknown_sink};
use super::output::{Exit, fail, print};
use super::paint::Paint;
use super::run::OutputFormat;
use crate::config::{Pipeline, SinkConfig, Style};
use crate::deliver::Request;
use crate::pipeline::{DryRun, DryRunReport};
use crate::record::Record;
use crate::source::decode::Decoder;

/// Dry-run records through the mapping.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink explain -c pipeline.toml records.ndjson
  head -n 5 app.ndjson | usercom-sink explain -c pipeline.toml
  usercom-sink explain -c pipeline.toml records.ndjson --format json | jq .calls")]
pub(super) struct ExplainCommand {
    #[command(flatten)]
    files: ConfigFiles,
    /// File of records, decoded like the sink's first source; `-` reads standard input
    #[arg(default_value = "-")]
    records: PathBuf,
    /// Output format; `json` prints one object per line
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
    /// Only this sink, if there are several
    #[arg(long)]
    sink: Option<String>,
}

impl ExplainCommand {
    pub(super) async fn run(self, style: Style, paint: Paint) -> Exit {
        let loaded = match self.files.load_offline(style) {
            Ok(loaded) => loaded,
            Err(exit) => return exit,
        };
        let pipeline = loaded.pipeline;
        let lines = match self.lines() {
            Ok(lines) => lines,
            Err(error) => {
                return fail(&format!("cannot read {}: {error}", self.records.display()));
            }
        };
        let chosen = pipeline
            .sinks
            .iter()
            .filter(|(name, _)| self.sink.as_ref().is_none_or(|only| only == *name));
        let mut known = false;
        for (name, SinkConfig::Usercom(sink)) in chosen {
            known = true;
            let dry_run = match DryRun::new(name, sink) {
                Ok(dry_run) => dry_run.in_zone(pipeline.timezone_of(&sink.inputs)),
                Err(_) => return Exit::BadConfig,
            };
            let decoder = match decoder_for(&pipeline, &sink.inputs) {
                Ok(decoder) => decoder,
                Err(why) => return fail(&why),
            };
            for decoded in decoder.lines(&lines) {
                let (n, body) = (decoded.line + 1, &decoded.body);
                let text = match decoded.fault {
                    None => {
                        let mut record = Record::new(body.clone());
                        record.meta = decoded.meta;
                        let report = dry_run.run_record(record).await;
                        self.show(name, n, body, &report, paint)
                    }
                    Some(why) => self.show_undecodable(name, n, body, &why, paint),
                };
                let printed = print(&text);
                if printed != Exit::Done {
                    return printed;
                }
            }
        }
        match (known, self.sink) {
            (false, Some(name)) => unknown_sink(&pipeline, &name),
            _ => Exit::Done,
        }
    }

    fn lines(&self) -> std::io::Result<Bytes> {
        let mut text = Vec::new();
        if self.records.as_os_str() == "-" {
            std::io::stdin().lock().read_to_end(&mut text)?;
        } else {
            std::fs::File::open(&self.records)?.read_to_end(&mut text)?;
        }
        Ok(text.into())
    }

    fn show(&self, sink: &str, n: u64, body: &[u8], report: &DryRunReport, paint: Paint) -> String {
        match self.format {
            OutputFormat::Json => format!("{}\n", as_json(sink, body, report)),
            OutputFormat::Text => as_text(sink, n, report, paint),
        }
    }

    fn show_undecodable(&self, sink: &str, n: u64, line: &[u8], why: &str, paint: Paint) -> String {
        let record = String::from_utf8_lossy(line);
        match self.format {
            OutputFormat::Json => {
                let none: [u8; 0] = [];
                let object = json!({
                    "sink": sink, "record": record, "rules": none, "calls": none,
                    "requests": none, "errors": [why],
                });
                format!("{object}\n")
            }
            OutputFormat::Text => {
                let title = paint.bold(format!("record {n} -> sink {sink}"));
                format!("{title}\n  {}: {why}\n\n", paint.bad("dead letter"))
            }
        }
    }
}

/// The decoder of the first source a sink reads.
fn decoder_for(pipeline: &Pipeline, inputs: &[String]) -> Result<Decoder, String> {
    let source = inputs.iter().find_map(|name| pipeline.sources.get(name));
    match source {
        Some(source) => crate::source::decoder(source),
        None => Decoder::new(&crate::config::source::Decoding::default()),
    }
}

fn as_json(sink: &str, body: &[u8], report: &DryRunReport) -> Value {
    let record = serde_json::from_slice(body)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(body).into_owned()));
    let rules = report.rules.iter();
    let rules: Vec<Value> = rules
        .map(|rule| json!({ "name": rule.name, "fired": rule.fired, "why": rule.why }))
        .collect();
    let left_out = report.left_out.iter();
    let left_out =
        left_out.map(|l| json!({ "rule": l.rule, "field": l.field, "reason": l.reason }));
    json!({
        "sink": sink,
        "record": record,
        "rules": rules,
        "calls": report.calls,
        "requests": report.requests.iter().map(request_json).collect::<Vec<_>>(),
        "errors": report.errors,
        "notes": report.notes,
        "left_out": left_out.collect::<Vec<_>>(),
    })
}

/// A request as `explain` and `test` show it.
pub(super) fn request_json(request: &Request) -> Value {
    let body = request.body.as_deref();
    json!({
        "method": request.method.as_str(),
        "path": request.path,
        "body": body.map_or(Value::Null, |body| {
            // A number that JSON parsers reject (1e400) is shown as text.
            let text = || Value::from(String::from_utf8_lossy(body).into_owned());
            serde_json::from_slice(body).unwrap_or_else(|_| text())
        }),
    })
}

fn as_text(sink: &str, n: u64, report: &DryRunReport, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.bold(format!("record {n} -> sink {sink}")));
    for rule in &report.rules {
        let mark = if rule.fired { paint.good("fired") } else { paint.faint("  -  ") };
        text += &format!("  {mark} {}: {}\n", rule.name, rule.why);
    }
    for call in &report.calls {
        text += &format!("  call    {call}\n");
    }
    for request in &report.requests {
        let body = request.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        text += &format!("  request {} {} {body}\n", request.method.as_str(), request.path);
    }
    for note in &report.notes {
        text += &format!("  {}    {note}\n", paint.notice("note"));
    }
    for error in &report.errors {
        text += &format!("  {}: {error}\n", paint.bad("dead letter"));
    }
    if report.calls.is_empty() && report.errors.is_empty() {
        text += &format!("  {}: no rule wants it\n", paint.notice("unmatched"));
    }
    text.push('\n');
    text
}
