//! `test`: runs the `[[tests]]` of a pipeline file and shows the differences.

use std::collections::HashMap;

use clap::Args;
use serde_json::Value;

use super::explain::request_json;
use super::load::ConfigFiles;
use super::output::{Exit, print};
use crate::config::{ExpectedCall, ExpectedOutcome, Pipeline, SinkConfig, Style, TestCase};
use crate::pipeline::{DryRun, DryRunReport};
use crate::record::Record;
use crate::source::decode_text;

/// Run the [[tests]] of a pipeline file.
#[derive(Debug, Args)]
pub(super) struct TestCommand {
    #[command(flatten)]
    files: ConfigFiles,
}

impl TestCommand {
    pub(super) async fn run(self, style: Style) -> Exit {
        let loaded = match self.files.load_offline(style) {
            Ok(loaded) => loaded,
            Err(exit) => return exit,
        };
        let mut rehearsals = HashMap::new();
        for (name, SinkConfig::Usercom(sink)) in &loaded.pipeline.sinks {
            match DryRun::new(name, sink) {
                Ok(dry_run) => {
                    let zone = loaded.pipeline.timezone_of(&sink.inputs);
                    rehearsals.insert(name.as_str(), dry_run.in_zone(zone))
                }
                Err(_) => return Exit::BadConfig,
            };
        }
        let tests = &loaded.pipeline.tests;
        let (mut text, mut failed) = (String::new(), 0);
        for test in tests {
            let differences = match rehearsals.get(test.sink.as_str()) {
                Some(dry_run) => match rehearse(dry_run, test, &loaded.pipeline).await {
                    Ok(rehearsed) => differences(test, &rehearsed),
                    Err(why) => vec![format!("    {why}")],
                },
                None => vec![format!("there is no sink `{}`", test.sink)],
            };
            let verdict = if differences.is_empty() { "ok" } else { "FAILED" };
            text += &format!("test {} ... {verdict}\n", test.name);
            for difference in &differences {
                text += &format!("{difference}\n");
            }
            failed += usize::from(!differences.is_empty());
        }
        text += &format!("\n{} passed, {failed} failed\n", tests.len() - failed);
        match print(&text) {
            Exit::Done if failed > 0 => Exit::Failed,
            exit => exit,
        }
    }
}

/// Dry-runs a test's record, or all records of its `line`.
async fn rehearse(
    dry_run: &DryRun,
    test: &TestCase,
    pipeline: &Pipeline,
) -> Result<DryRunReport, String> {
    let Some(line) = &test.line else {
        let body = test.record.as_ref().unwrap_or(&Value::Null).to_string();
        return Ok(dry_run.run(body.as_bytes()).await);
    };
    let SinkConfig::Usercom(sink) = pipeline
        .sinks
        .get(&test.sink)
        .ok_or_else(|| format!("there is no sink `{}`", test.sink))?;
    let name = test.source.as_ref().or(sink.inputs.first());
    let source = name.and_then(|name| pipeline.sources.get(name));
    let source = source.ok_or("there is no source whose decoding could be used")?;
    let mut all = DryRunReport::nothing();
    for decoded in decode_text(source, &line.clone().into())? {
        match decoded.fault {
            Some(why) => all.errors.push(format!("line {}: {why}", decoded.line + 1)),
            None => {
                let mut record = Record::new(decoded.body);
                record.meta = decoded.meta;
                all.then(dry_run.run_record(record).await);
            }
        }
    }
    Ok(all)
}

/// Differences from the expected outcome, as indented lines.
fn differences(test: &TestCase, got: &DryRunReport) -> Vec<String> {
    let mut found = Vec::new();
    compare_outcome(test, got, &mut found);
    if !test.calls.is_empty() {
        let pairs = test.calls.iter().map(|call| {
            let exact = call.exact.unwrap_or(test.exact);
            (expected_json(call), exact)
        });
        compare_lists("call", &pairs.collect::<Vec<_>>(), &got.calls, &mut found);
    }
    if !test.requests.is_empty() {
        let expected = test.requests.iter().map(|request| {
            let mut object = serde_json::Map::new();
            for (key, value) in [("method", &request.method), ("path", &request.path)] {
                if let Some(value) = value {
                    object.insert(key.into(), value.as_str().into());
                }
            }
            if let Some(body) = &request.body {
                object.insert("body".into(), body.clone());
            }
            (Value::Object(object), test.exact)
        });
        let requests: Vec<Value> = got.requests.iter().map(request_json).collect();
        compare_lists("request", &expected.collect::<Vec<_>>(), &requests, &mut found);
    }
    found
}

fn compare_outcome(test: &TestCase, got: &DryRunReport, found: &mut Vec<String>) {
    let became = if !got.errors.is_empty() {
        Some(ExpectedOutcome::DeadLetter)
    } else if got.calls.is_empty() {
        Some(ExpectedOutcome::Unmatched)
    } else {
        None
    };
    if became == test.outcome {
        return;
    }
    let name = |outcome| match outcome {
        None => "calls",
        Some(ExpectedOutcome::Unmatched) => "unmatched",
        Some(ExpectedOutcome::DeadLetter) => "dead letter",
    };
    found.push(format!("    outcome\n  -   {}\n  +   {}", name(test.outcome), name(became)));
    found.extend(got.errors.iter().map(|error| format!("      {error}")));
    if became == Some(ExpectedOutcome::Unmatched) {
        let rules = got.rules.iter();
        found.extend(rules.map(|rule| format!("      {}: {}", rule.name, rule.why)));
    }
}

fn expected_json(call: &ExpectedCall) -> Value {
    serde_json::to_value(call).expect("expected calls are plain data")
}

fn compare_lists(what: &str, expected: &[(Value, bool)], got: &[Value], found: &mut Vec<String>) {
    for (n, (expected, exact)) in expected.iter().enumerate() {
        match got.get(n) {
            None => found.push(format!("    {what} {} is missing\n  -   {expected}", n + 1)),
            Some(got) => {
                let mut lines = Vec::new();
                diff("", expected, got, *exact, &mut lines);
                if !lines.is_empty() {
                    found.push(format!("    {what} {}\n{}", n + 1, lines.join("\n")));
                }
            }
        }
    }
    for (n, extra) in got.iter().enumerate().skip(expected.len()) {
        found.push(format!("    {what} {} is one too many\n  +   {extra}", n + 1));
    }
}

/// Compares the named keys, or all of them; numbers and times by value.
fn diff(at: &str, expected: &Value, got: &Value, exact: bool, lines: &mut Vec<String>) {
    if let (Value::Object(expected), Value::Object(got)) = (expected, got) {
        for (key, value) in expected {
            let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            match got.get(key) {
                Some(got) => diff(&at, value, got, exact, lines),
                None => lines.push(format!("  -   {at} = {value}\n  +   {at} is missing")),
            }
        }
        if exact {
            for (key, value) in got.iter().filter(|(key, _)| !expected.contains_key(*key)) {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                lines.push(format!("  +   {at} = {value}"));
            }
        }
        return;
    }
    let moment = |value: &Value| value.as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
    let same = expected == got
        || (expected.as_f64().is_some() && expected.as_f64() == got.as_f64())
        || (at == "timestamp" && moment(expected).is_some() && moment(expected) == moment(got));
    if !same {
        lines.push(format!("  -   {at} = {expected}\n  +   {at} = {got}"));
    }
}
