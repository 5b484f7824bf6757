//! The page of metrics names every metric.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use regex::Regex;
use usercom_sink::call::CallKind;
use usercom_sink::telemetry::Metrics;

use super::{Page, rows, src};
use crate::layering::sources;

/// Names in the code that are registered as metrics, without the `_total` of counters.
fn registered_metrics() -> BTreeSet<String> {
    let call = Regex::new(r#"\bregister(?:ed)?\(\s*(?:\w+,\s*)?"([a-z_]+)""#).unwrap();
    let mut names = BTreeSet::new();
    for file in sources(&src()) {
        let text = fs::read_to_string(file).unwrap();
        names.extend(call.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    names
}

/// The metrics that a process shows, with their labels but those of every metric.
fn rendered_metrics() -> BTreeMap<String, BTreeSet<String>> {
    let metrics = Metrics::default();
    let sink = metrics.sink("crm");
    sink.call(CallKind::Track);
    sink.request("GET", "users/");
    sink.response(200, "users/", Duration::from_millis(1));
    let source = metrics.source("app", "kafka");
    source.refused("no_room");
    source.unwanted("metric");
    source.lag().set("t", 0, 1);
    source.lag().removed("t", 0, 1);
    let sample = Regex::new(r"^(\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? ").unwrap();
    let label = Regex::new(r#"(\w+)=""#).unwrap();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in metrics.render().lines().filter(|line| !line.starts_with('#')) {
        let parts = sample.captures(line).unwrap();
        let labels = label.captures_iter(parts.get(2).map_or("", |labels| labels.as_str()));
        let labels = labels.map(|found| found[1].to_owned());
        let labels = labels.filter(|name| !name.starts_with("component_") && name != "le");
        found.entry(parts[1].to_owned()).or_default().extend(labels);
    }
    found
}

#[test]
fn page_of_metrics_names_every_metric_with_its_labels() {
    // `docs/metrics.md` has a row for each metric that the code registers, and no other.
    let row = Regex::new(r"^`([a-z_]+)(?:\{([a-z_,]+)\})?`$").unwrap();
    let mut documented = BTreeMap::new();
    for cells in rows(&Page::read("docs/metrics.md").text) {
        if let Some(parts) = row.captures(&cells[0]) {
            let labels = parts.get(2).map_or("", |labels| labels.as_str());
            let labels = labels.split(',').filter(|name| !name.is_empty()).map(str::to_owned);
            documented.insert(parts[1].to_owned(), labels.collect::<BTreeSet<_>>());
        }
    }
    let base = |name: &String| name.strip_suffix("_total").unwrap_or(name).to_owned();
    let names: BTreeSet<String> = documented.keys().map(base).collect();
    let mut known = registered_metrics();
    let rendered = rendered_metrics();
    known.extend(rendered.keys().map(base));
    assert_eq!(names, known);
    for (name, labels) in rendered {
        assert_eq!(documented.get(&name), Some(&labels), "labels of {name}");
    }
}
