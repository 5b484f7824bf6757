//! Input made to hurt: it ends as a call or as a fault, quickly, never as a crash.

use std::time::Duration;

use usercom_sink::config::fault::ConfigPath;
use usercom_sink::config::mapping::Rule;
use usercom_sink::config::sink::Preset;
use usercom_sink::mapping::{CompiledMapping, Input, MappingErrorCode};

fn plan(fields: &str) -> CompiledMapping {
    let text = format!("call = \"identify\"\n[fields]\nuser_id = \".id\"\n{fields}");
    let rule: Rule = toml::from_str(&text).unwrap();
    CompiledMapping::compile(&ConfigPath::default(), &[rule], None).unwrap()
}

fn preset() -> CompiledMapping {
    CompiledMapping::compile(&ConfigPath::default(), &[], Some(Preset::Segment)).unwrap()
}

fn input(body: &[u8]) -> Input<'_> {
    Input { body, meta: None }
}

#[test]
fn text_that_is_not_utf8_is_a_fault() {
    // Bytes that are no UTF-8 are a fault that says where they are, with rules and with a preset.
    for plan in [plan("\"traits.a\" = \".a\""), preset()] {
        let fault = plan.map(input(b"{\"id\":\"\xff\"}")).unwrap_err();
        assert_eq!(fault.code, MappingErrorCode::InvalidUtf8);
        assert!(fault.to_string().contains("byte 7"), "{fault}");
    }
}

#[test]
fn deep_nesting_costs_no_stack() {
    // A hundred thousand nested arrays or objects, used and unused, go through every step.
    let plan = plan(concat!(
        "\"traits.deep\" = \".deep\"\n",
        "\"traits.inner\" = \".deep[0][0]\"\n",
        "\"traits.flat\" = { path = \".o\", flatten = \"_\" }\n",
        "\"traits.text\" = { path = \".deep\", then = [\"to_json\"] }\n",
        "\"traits.parsed\" = { path = \".text\", then = [\"parse_json\"] }\n",
        "\"traits.each\" = { path = \".deep\", each = { a = \".[0].a\" } }\n",
        "\"traits.*\" = \".o\"\n",
    ));
    let depth = 100_000;
    let deep = "[".repeat(depth) + &"]".repeat(depth);
    let object = "{\"k\":".repeat(depth) + "1" + &"}".repeat(depth);
    let body =
        format!(r#"{{"id":"u","deep":{deep},"unused":{deep},"o":{object},"text":"{deep}"}}"#);
    let mapped = plan.map(input(body.as_bytes())).unwrap();
    let fields = &mapped.calls[0].call.fields;
    let size = |name: &str| fields.get(name).unwrap().len();
    assert_eq!(size("deep"), 2 * depth);
    assert_eq!(size("inner"), 2 * depth - 4);
    assert_eq!(size("text"), 2 * depth + 2);
    assert_eq!(size("parsed"), 2 * depth);
    assert!(fields.get("k").is_some());

    let body = format!(
        r#"{{"type":"identify","userId":"u","traits":{object},"context":{{"x":{deep}}},"y":{deep}}}"#
    );
    assert_eq!(preset().map(input(body.as_bytes())).unwrap().calls.len(), 1);
    let batch = format!(r#"{{"batch":{deep}}}"#);
    let fault = preset().map(input(batch.as_bytes())).unwrap_err();
    assert_eq!(fault.code, MappingErrorCode::NotAnObject);
}

#[test]
fn many_keys_cost_linear_time() {
    // A spread of two hundred thousand keys, half of them repeated, takes time in proportion.
    use std::fmt::Write as _;
    let mut object = String::from("{");
    for n in 0..200_000 {
        write!(object, "\"k{}\":{n},", n % 100_000).unwrap();
    }
    object.push_str("\"z\":0}");
    let body = format!(r#"{{"id":"u","o":{object}}}"#);
    let plan = plan("\"traits.*\" = \".o\"\n");
    let (done, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mapped = plan.map(input(body.as_bytes())).unwrap();
        let fields = mapped.calls[0].call.fields.entries();
        done.send((fields.len(), fields[0].1.to_owned())).unwrap();
    });
    // Comparing every key with every other would take minutes.
    let (len, first) = waiting.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((len, first.as_str()), (100_001, "100000"));
}

#[test]
fn truncated_record_is_a_fault() {
    // A record cut anywhere is told to be no JSON; none of it becomes a call.
    let body = r#"{"type":"track","id":"u","userId":"u","event":"Ż\u00e9","properties":{"a":[1,{"b":null}]}}"#;
    let table = plan("\"traits.a\" = \".properties.a[-1].b\"\n\"traits.*\" = \".properties\"\n");
    for plan in [table, preset()] {
        assert!(plan.map(input(body.as_bytes())).is_ok());
        for end in 0..body.len() {
            let fault = plan.map(input(&body.as_bytes()[..end])).unwrap_err();
            let no_text =
                matches!(fault.code, MappingErrorCode::InvalidJson | MappingErrorCode::InvalidUtf8);
            assert!(no_text, "{end}: {fault}");
        }
    }
}

#[test]
fn fault_text_is_one_line() {
    // Control characters of a record never reach a fault's line as they are.
    let plan = plan("\"traits.a\" = { path = \".a\", as = \"integer\", required = true }\n");
    let fault = plan.map(input(br#"{"id":"u","a":"x\n\u001b[31m"}"#)).unwrap_err();
    assert!(!fault.to_string().contains(char::is_control), "{fault:?}");
}
