//! A thousand events of a web shop, as a pipeline receives them.

use std::collections::BTreeMap;
use std::path::Path;

use usercom_sink::config::fault::ConfigPath;
use usercom_sink::config::sink::Preset;
use usercom_sink::mapping::{CompiledMapping, Input};

#[test]
fn thousand_records_make_a_thousand_calls() {
    // The preset makes exactly one call of the right kind from every record of the sample.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mix-1000.ndjson");
    let Ok(text) = std::fs::read(&file) else {
        eprintln!("SKIPPED: {} is absent", file.display());
        return;
    };
    let plan =
        CompiledMapping::compile(&ConfigPath::default(), &[], Some(Preset::Segment)).unwrap();
    let mut kinds = BTreeMap::new();
    for body in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let mapped = plan.map(Input { body, meta: None }).unwrap();
        assert_eq!(mapped.calls.len(), 1);
        let call = &mapped.calls[0].call;
        assert!(call.timestamp.is_some() && call.message_id.is_some());
        *kinds.entry(call.kind.as_str()).or_insert(0) += 1;
    }
    let expected = [("group", 50), ("identify", 150), ("page", 300), ("track", 500)];
    assert_eq!(kinds, BTreeMap::from(expected));
}
