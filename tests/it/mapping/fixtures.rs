//! Runs `tests/it/mapping/<directive>/*.toml`. A file is a list of cases: a table (or `traits`,
//! short for one identify rule with `user_id = ".id"`), a record, and what must come of it.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;
use usercom_sink::call::CallKind;
use usercom_sink::config::fault::{ConfigPath, Fault, Target};
use usercom_sink::config::mapping::{FieldValue, Rule};
use usercom_sink::config::sink::Preset;
use usercom_sink::mapping::{CompiledMapping, Input};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    mapping: Vec<Rule>,
    traits: Option<IndexMap<String, FieldValue>>,
    preset: Option<Preset>,
    record: Option<String>,
    meta: Option<String>,
    /// JSON of the calls, exactly.
    calls: Option<String>,
    /// JSON of the traits, or properties, of the only call.
    fields: Option<String>,
    matched: Option<bool>,
    elements: Option<Vec<u32>>,
    conversions_failed: Option<u32>,
    map_misses: Option<u32>,
    not_arrays: Option<u32>,
    spread_left_out: Option<u32>,
    elements_unmatched: Option<u32>,
    /// The code of the record's fault.
    fault: Option<String>,
    /// What the fault's line contains.
    says: Option<String>,
    /// What `explain` says of each rule contains.
    why: Option<Vec<String>>,
    fired: Option<Vec<bool>>,
    /// The faults of the table.
    #[serde(default)]
    faults: Vec<Expected>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    code: String,
    /// Below `sinks.crm`.
    at: String,
    /// What the range covers, for faults that point into a text.
    part: Option<(usize, usize)>,
    says: Option<String>,
    help: Option<String>,
}

#[test]
fn fixtures() {
    // Every directive of the mapping table does what its fixtures say, good cases and bad.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mapping");
    let mut cases = 0;
    let mut failures = Vec::new();
    for file in files(&root) {
        let text = std::fs::read_to_string(&file).unwrap();
        let parsed: File =
            toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for case in parsed.case {
            cases += 1;
            if let Err(why) = check(&case) {
                let place = file.strip_prefix(&root).unwrap().display();
                failures.push(format!("{place}: {}: {why}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(cases > 80, "only {cases} cases found");
}

fn files(root: &Path) -> Vec<PathBuf> {
    let pattern = root.join("*/*.toml");
    let found = glob::glob(pattern.to_str().unwrap()).unwrap();
    found.map(Result::unwrap).collect()
}

fn rules(case: &Case) -> Vec<Rule> {
    let mut rules = case.mapping.clone();
    if let Some(traits) = &case.traits {
        let id = ("user_id".to_owned(), FieldValue::Path(".id".into()));
        let named = traits.iter().map(|(key, value)| (format!("traits.{key}"), value.clone()));
        rules.push(Rule {
            name: None,
            call: CallKind::Identify,
            when: None,
            foreach: None,
            stop: false,
            fields: std::iter::once(id).chain(named).collect(),
        });
    }
    rules
}

fn check(case: &Case) -> Result<(), String> {
    let at = ConfigPath::default().key("sinks").key("crm");
    let plan = match (CompiledMapping::compile(&at, &rules(case), case.preset), case.faults.len()) {
        (Ok(plan), 0) => plan,
        (Ok(_), _) => return Err("the table compiled".into()),
        (Err(faults), _) => return faults_match(&faults, &case.faults),
    };
    let Some(record) = &case.record else {
        return Ok(());
    };
    let input = Input { body: record.as_bytes(), meta: case.meta.as_ref().map(String::as_bytes) };
    let explained = plan.explain(input);
    let result = plan.map(input);
    if explained.result != result {
        return Err("map and explain differ".into());
    }
    traces_match(case, &explained.rules)?;
    let mapped = match (result, &case.fault) {
        (Ok(mapped), None) => mapped,
        (Ok(mapped), Some(_)) => return Err(format!("mapped to {mapped:?}")),
        (Err(fault), None) => return Err(format!("failed: {fault}")),
        (Err(fault), Some(code)) => {
            equal("fault", &fault.code.as_str(), &code.as_str())?;
            return contains("fault", &fault.to_string(), case.says.as_deref());
        }
    };
    let calls: Vec<Value> = mapped.calls.iter().map(|c| c.call.to_json()).collect();
    if let Some(expected) = &case.calls {
        equal("calls", &Value::from(calls.clone()), &json(expected))?;
    }
    if let Some(expected) = &case.fields {
        equal("number of calls", &calls.len(), &1)?;
        let fields = calls[0].get("traits").or(calls[0].get("properties")).cloned();
        equal("fields", &fields.unwrap_or(json("{}")), &json(expected))?;
    }
    if let Some(matched) = case.matched {
        equal("matched", &mapped.matched, &matched)?;
    }
    if let Some(elements) = &case.elements {
        let found: Vec<u32> = mapped.calls.iter().map(|c| c.element).collect();
        equal("elements", &found, elements)?;
    }
    let stats = &mapped.stats;
    let lost =
        stats.conversions_failed + stats.map_misses + stats.not_arrays + stats.spread_left_out;
    equal("losses", &stats.losses.len(), &usize::try_from(lost).unwrap().min(16))?;
    for (name, found, expected) in [
        ("conversions_failed", stats.conversions_failed, case.conversions_failed),
        ("map_misses", stats.map_misses, case.map_misses),
        ("not_arrays", stats.not_arrays, case.not_arrays),
        ("spread_left_out", stats.spread_left_out, case.spread_left_out),
        ("elements_unmatched", stats.elements_unmatched, case.elements_unmatched),
    ] {
        equal(name, &found, &expected.unwrap_or(0))?;
    }
    Ok(())
}

fn traces_match(case: &Case, traces: &[usercom_sink::mapping::RuleTrace]) -> Result<(), String> {
    let rules = rules(case).len() + usize::from(case.preset.is_some());
    equal("number of traces", &traces.len(), &rules)?;
    if let Some(fired) = &case.fired {
        let found: Vec<bool> = traces.iter().map(|t| t.fired).collect();
        equal("fired", &found, fired)?;
    }
    for (trace, why) in traces.iter().zip(case.why.iter().flatten()) {
        contains("why", &trace.why, Some(why))?;
    }
    Ok(())
}

fn faults_match(found: &[Fault], expected: &[Expected]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{} faults expected, found {found:#?}", expected.len()));
    }
    // Faults come in the order of the table's keys, which a TOML table does not keep.
    let place = |e: &&Expected| (format!("sinks.crm.{}", e.at), e.part.map(|p| p.0));
    let start = |f: &&Fault| match &f.target {
        Target::Part(range) => Some(range.start),
        _ => None,
    };
    let mut found: Vec<_> = found.iter().collect();
    found.sort_by_key(|f| (f.path.to_string(), start(f)));
    let mut expected: Vec<_> = expected.iter().collect();
    expected.sort_by_key(place);
    for (found, expected) in found.into_iter().zip(expected) {
        equal("code", &found.code, &expected.code.as_str())?;
        equal("place", &found.path.to_string(), &format!("sinks.crm.{}", expected.at))?;
        if let Some((start, end)) = expected.part {
            equal("part", &found.target, &Target::Part(start..end))?;
        }
        contains("message", &found.message, expected.says.as_deref())?;
        contains("help", &found.help.clone().unwrap_or_default(), expected.help.as_deref())?;
    }
    Ok(())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text}"))
}

fn equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, expected {expected:?}"))
}

fn contains(what: &str, found: &str, expected: Option<&str>) -> Result<(), String> {
    match expected {
        Some(expected) if !found.contains(expected) => {
            Err(format!("{what}: `{expected}` is not in `{found}`"))
        }
        _ => Ok(()),
    }
}
