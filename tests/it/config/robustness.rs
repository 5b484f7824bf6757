//! No text makes the loader panic.

use proptest::prelude::*;
use usercom_sink::config::Style;

use super::load_text;

const EXAMPLE: &str = include_str!("../../../examples/01-signup.toml");

const YAML: &str = "sources: {app: {type: stdin}}\nsinks:\n  crm: &a\n    type: usercom\n    inputs: [app]\n    app: acme\n    api_key: ${KEY}\n    preset: segment\n    x: *a\n";

const JSON: &str = r#"{"sources":{"app":{"type":"stdin"}},"sinks":{"crm":{"type":"usercom","inputs":["app"],"app":"acme","api_key":"${KEY}","mapping":[{"call":"track","fields":{"user_id":".\ud83d\ude00"}}]}}}"#;

fn survives(name: &str, text: &str) {
    if let Err(report) = load_text(name, text) {
        assert!(!report.is_empty(), "a refusal says why");
        let rendered = report.render(Style::Plain);
        assert!(rendered.contains("error"), "{rendered}");
        report.render(Style::Coloured);
    }
}

/// A text with a stretch of it replaced.
fn mutated(text: &'static str) -> impl Strategy<Value = String> {
    let characters: Vec<char> = text.chars().collect();
    let length = characters.len();
    let insertion = prop_oneof![
        Just(String::new()),
        "[\\[\\]{}\"'=:,.#\\n$*&|>-]{1,4}",
        "\\PC{0,3}",
        Just("${".to_owned()),
        Just("\"\"\"".to_owned()),
    ];
    prop::collection::vec((0..length, 0..6_usize, insertion), 1..4).prop_map(move |edits| {
        let mut characters = characters.clone();
        for (at, taken, insertion) in edits {
            let at = at.min(characters.len());
            let end = (at + taken).min(characters.len());
            characters.splice(at..end, insertion.chars());
        }
        characters.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_toml_file_is_loaded_or_refused(text in mutated(EXAMPLE)) {
        // TOML with damage anywhere never makes the loader panic.
        survives("p.toml", &text);
    }

    #[test]
    fn a_mutated_yaml_file_is_loaded_or_refused(text in mutated(YAML)) {
        // YAML with damage anywhere never makes the loader panic.
        survives("p.yaml", &text);
    }

    #[test]
    fn a_mutated_json_file_is_loaded_or_refused(text in mutated(JSON)) {
        // JSON with damage anywhere never makes the loader panic.
        survives("p.json", &text);
    }

    #[test]
    fn any_text_is_loaded_or_refused(text in "\\PC{0,60}") {
        // Text that was never a pipeline is refused in every notation.
        for name in ["p.toml", "p.yaml", "p.json"] {
            survives(name, &text);
        }
    }
}

#[test]
fn depth_and_aliases_are_bounded() {
    // Files made to exhaust stack or memory are refused with a place.
    let deep = "[".repeat(50_000);
    for (name, text) in [
        ("p.toml", format!("a = {deep}")),
        ("p.json", deep.clone()),
        ("p.yaml", deep.clone()),
        ("p.json", format!("{}{}", "[".repeat(300), "]".repeat(300))),
    ] {
        let report = load_text(name, &text).expect_err(name);
        assert_eq!(report.diagnostics()[0].code, "E0002", "{name}");
    }
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let report = load_text("p.yaml", &laughs).expect_err("too large");
    assert_eq!(report.diagnostics()[0].code, "E0002");
}
