//! `test`: runs the `[[tests]]` of a pipeline file and shows the differences.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time::Instant;

use super::explain::request_json;
use super::junit::{JunitCase, junit};
use super::load::ConfigFiles;
use super::output::{Exit, eprint, fail, print, printable};
use super::paint::Paint;
use crate::config::{ExpectedCall, ExpectedOutcome, Pipeline, SinkConfig, Style, TestCase};
use crate::pipeline::{DryRun, DryRunReport};
use crate::record::Record;
use crate::source::decode_text;

/// Run the [[tests]] of a pipeline file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink test -c pipeline.toml
  usercom-sink test -c pipeline.toml --filter signup
  usercom-sink test -c pipeline.toml --junit results.xml

The exit code is 1 if a test fails and if there is none to run.")]
pub(super) struct TestCommand {
    #[command(flatten)]
    files: ConfigFiles,
    /// Run only tests whose name contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write the results as JUnit XML to this file too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// The result of one test.
struct TestResult<'a> {
    test: &'a TestCase,
    /// Differences from the expected outcome, as indented lines; empty if it passed.
    differences: Vec<String>,
    took: Duration,
}

impl TestCommand {
    pub(super) async fn run(self, style: Style, paint: Paint) -> Exit {
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
        let is_wanted =
            |test: &&TestCase| self.filter.as_ref().is_none_or(|text| test.name.contains(text));
        let mut results = Vec::new();
        let mut fired = BTreeSet::new();
        for test in loaded.pipeline.tests.iter().filter(is_wanted) {
            let began = Instant::now();
            let differences = match rehearsals.get(test.sink.as_str()) {
                Some(dry_run) => match rehearse(dry_run, test, &loaded.pipeline).await {
                    Ok(rehearsed) => {
                        let names = rehearsed.rules.iter().filter(|rule| rule.fired);
                        fired.extend(names.map(|rule| (test.sink.clone(), rule.name.clone())));
                        differences(test, &rehearsed)
                    }
                    Err(why) => vec![format!("    {why}")],
                },
                None => vec![format!("    there is no sink `{}`", test.sink)],
            };
            results.push(TestResult { test, differences, took: began.elapsed() });
        }
        if let Some(exit) = self.write_junit(&results) {
            return exit;
        }
        if results.is_empty() {
            return self.nothing_to_run(&loaded.pipeline);
        }
        let failed = results.iter().filter(|result| !result.differences.is_empty()).count();
        let printed = print(&as_text(&results, failed, paint));
        // Tests that were left out may fire the other rules.
        if self.filter.is_none() {
            let untested = untested_rules(&rehearsals, &fired);
            if !untested.is_empty() {
                eprint(&format!("no test fires these rules: {}\n", untested.join(", ")));
            }
        }
        match printed {
            Exit::Done if failed > 0 => Exit::Failed,
            exit => exit,
        }
    }

    fn nothing_to_run(&self, pipeline: &Pipeline) -> Exit {
        match (&self.filter, pipeline.tests.len()) {
            (Some(text), 1..) => {
                let names = pipeline.tests.iter().take(20).map(|test| format!("`{}`", test.name));
                let names = names.collect::<Vec<_>>().join(", ");
                fail(&format!(
                    "no test has `{}` in its name; the tests are {names}",
                    printable(&text)
                ))
            }
            _ => {
                fail("there is no test: write `[[tests]]` with a `record` and the expected `calls`")
            }
        }
    }

    fn write_junit(&self, results: &[TestResult<'_>]) -> Option<Exit> {
        let path = self.junit.as_ref()?;
        let cases = results.iter().map(|result| JunitCase {
            name: &result.test.name,
            group: &result.test.sink,
            took: result.took,
            failure: (!result.differences.is_empty()).then(|| result.differences.join("\n")),
        });
        let written = junit(&cases.collect::<Vec<_>>()).and_then(|text| std::fs::write(path, text));
        let failed = |error| fail(&format!("cannot write {}: {error}", path.display()));
        written.err().map(failed)
    }
}

fn as_text(results: &[TestResult<'_>], failed: usize, paint: Paint) -> String {
    let mut text = String::new();
    for TestResult { test, differences, .. } in results {
        let verdict = if differences.is_empty() { paint.good("ok") } else { paint.bad("FAILED") };
        text += &format!("test {} ... {verdict}\n", printable(&test.name));
        for line in differences.iter().flat_map(|difference| difference.lines()) {
            let shown = match line.trim_start().chars().next() {
                Some('-') => paint.bad(line),
                Some('+') => paint.good(line),
                _ => line.to_owned(),
            };
            text += &format!("{shown}\n");
        }
    }
    let passed = results.len() - failed;
    text + &format!("\n{passed} passed, {failed} failed\n")
}

/// Rules of the tested sinks that fired in no test.
fn untested_rules(
    rehearsals: &HashMap<&str, DryRun>,
    fired: &BTreeSet<(String, String)>,
) -> Vec<String> {
    let mut sinks: Vec<_> = rehearsals.iter().collect();
    sinks.sort_by_key(|(name, _)| **name);
    let rules = sinks.into_iter().flat_map(|(sink, dry_run)| {
        dry_run.rule_names().map(move |rule| ((*sink).to_owned(), rule.to_owned()))
    });
    rules
        .filter(|rule| !fired.contains(rule))
        .map(|(sink, rule)| format!("`{}` of sink {sink}", printable(&rule)))
        .collect()
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
