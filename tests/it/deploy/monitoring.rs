//! Alert rules and dashboard name metrics, labels and values of labels that `/metrics` has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use usercom_sink::call::CallKind;
use usercom_sink::telemetry::Metrics;

use super::promql::{Selector, names};
use super::{text, yaml};

/// Labels that Prometheus adds to what it reads.
const ADDED_LABELS: &[&str] = &["instance", "job"];

/// By name of a metric: its labels, with the values they have.
type Families = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// What `/metrics` of a process shows that has counted something of each kind.
fn families() -> Families {
    let metrics = Metrics::default();
    let sink = metrics.sink("crm");
    sink.call(CallKind::Track);
    sink.request("POST", "users/");
    sink.response(200, "users/", Duration::from_millis(20));
    sink.dead_letters_deleted(1);
    let source = metrics.source("app", "kafka");
    source.sent(1, 1);
    source.lag().set("topic", 0, 1);
    source.lag().removed("topic", 0, 1);
    let mut families = Families::new();
    // Prometheus' own: 1 while it can read the process.
    families.insert("up".into(), BTreeMap::new());
    for line in metrics.render().lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once('{').expect("every metric names its component");
        let (labels, _) = rest.rsplit_once('}').expect("braces close");
        let family = families.entry(name.to_owned()).or_default();
        for label in labels.split("\",") {
            let (label, value) = label.split_once("=\"").expect("a label has a value");
            let value = value.trim_end_matches('"').to_owned();
            family.entry(label.to_owned()).or_default().insert(value);
        }
    }
    families
}

/// What is wrong with an expression.
fn faults(expression: &str, families: &Families) -> Vec<String> {
    let names = names(expression);
    let mut faults = Vec::new();
    let mut known: BTreeSet<&str> = ADDED_LABELS.iter().copied().collect();
    if names.selectors.is_empty() {
        faults.push(format!("no metric in {expression}"));
    }
    for Selector { metric, matchers } in &names.selectors {
        let Some(family) = families.get(metric) else {
            faults.push(format!("no metric {metric}"));
            continue;
        };
        known.extend(family.keys().map(String::as_str));
        for (label, wanted) in matchers {
            if wanted.starts_with('$') || ADDED_LABELS.contains(&label.as_str()) {
                continue;
            }
            match family.get(label) {
                None => faults.push(format!("{metric} has no label {label}")),
                Some(values) => faults.extend(
                    wanted
                        .split('|')
                        .filter(|value| !values.contains(*value))
                        .map(|value| format!("{metric} never has {label}={value}")),
                ),
            }
        }
    }
    for label in &names.grouping {
        if !known.contains(label.as_str()) {
            faults.push(format!("no label {label} in {expression}"));
        }
    }
    faults
}

/// Labels that the result of an expression has: those it groups by, else those of its metrics.
fn result_labels(expression: &str, families: &Families) -> BTreeSet<String> {
    let names = names(expression);
    if !names.grouping.is_empty() {
        return names.grouping;
    }
    let metrics = names.selectors.iter().filter_map(|selector| families.get(&selector.metric));
    let added = ADDED_LABELS.iter().map(|label| (*label).to_owned());
    metrics.flat_map(|family| family.keys().cloned()).chain(added).collect()
}

#[test]
fn alert_rule_names_only_metrics_and_labels_that_exist() {
    // Each rule, and each label its texts show, can be evaluated on what the program exports.
    let families = families();
    let alerts = yaml("deploy/prometheus/alerts.yaml");
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 10);
    let mut seen = BTreeSet::new();
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        assert!(seen.insert(name), "{name} twice");
        let expression = rule["expr"].as_str().unwrap();
        assert_eq!(faults(expression, &families), [""; 0], "{name}");
        assert!(matches!(
            rule["labels"]["severity"].as_str(),
            Some("critical" | "warning" | "info")
        ));
        let labels = result_labels(expression, &families);
        for text in ["summary", "description"] {
            let text =
                rule["annotations"][text].as_str().unwrap_or_else(|| panic!("{name}: {text}"));
            for shown in text.split("$labels.").skip(1) {
                let end = shown.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap();
                assert!(labels.contains(&shown[..end]), "{name} shows {}", &shown[..end]);
            }
        }
    }
}

#[test]
fn prometheus_rule_of_the_operator_equals_the_alert_rules() {
    // Both files have the same groups.
    let rules = yaml("deploy/prometheus/alerts.yaml");
    let resource = yaml("deploy/kubernetes/monitoring/prometheusrule.yaml");
    assert_eq!(resource["spec"]["groups"], rules["groups"]);
}

#[test]
fn dashboard_names_only_metrics_and_labels_that_exist() {
    // Each panel and each variable can be evaluated, and each legend shows a label of its result.
    let families = families();
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/usercom-sink.json")).unwrap();
    let mut targets = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            assert_eq!(faults(expression, &families), [""; 0], "{title}");
            let labels = result_labels(expression, &families);
            for shown in target["legendFormat"].as_str().unwrap().split("{{").skip(1) {
                let (shown, _) = shown.split_once("}}").unwrap();
                assert!(labels.contains(shown), "{title} shows {shown}");
            }
            targets += 1;
        }
    }
    assert!(targets >= 20, "{targets}");
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["query"]["query"].as_str() else { continue };
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) = inside.unwrap().split_once(", ").unwrap();
        let known = families[metric].contains_key(label) || ADDED_LABELS.contains(&label);
        assert!(known, "{query}");
    }
}

#[test]
fn unknown_name_in_an_expression_is_a_fault() {
    // The check finds a wrong metric, label, value and grouping.
    let families = families();
    for (expression, fault) in [
        ("rate(usercom_calls[5m])", "no metric usercom_calls"),
        ("usercom_halted{reason=\"x\"}", "usercom_halted has no label reason"),
        (
            "usercom_retries_total{reason=\"too_many\"}",
            "usercom_retries_total never has reason=too_many",
        ),
        ("sum by (topic) (usercom_halted)", "no label topic in sum by (topic) (usercom_halted)"),
    ] {
        assert_eq!(faults(expression, &families), [fault]);
    }
}
