//! Rows 3 and 12: `test`, and what `explain` says of a record that becomes a dead letter.

use super::config::UNSET;
use super::run;
use crate::support::TestDir;

/// Two tests: the first passes, the second fails.
const TESTS: &str = r#"
[[sinks.crm.mapping]]
name = "never & tested"
when = { ".kind" = "other" }
call = "identify"
[sinks.crm.mapping.fields]
user_id = ".id"

[[tests]]
name = "a signup <ok>"
sink = "crm"
line = '''{"kind":"signup","id":"u1","email":"a@b.c"}'''
[[tests.calls]]
type = "identify"
userId = "u1"

[[tests]]
name = "an order"
sink = "crm"
record = { kind = "order" }
[[tests.calls]]
type = "track"
"#;

#[test]
fn f3_03_test_without_tests_ends_with_1() {
    // Guarantees that nothing to run is no success, also where a filter leaves nothing.
    let place = TestDir::new();
    let none = place.write("none.toml", UNSET);
    let (code, stdout, stderr) = run(&["test"], &none);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("there is no test"), "{stderr}");
    let some = place.write("some.toml", &format!("{UNSET}{TESTS}"));
    let (code, _, stderr) = run(&["test", "--filter", "sginup"], &some);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("no test has `sginup`") && stderr.contains("an order"), "{stderr}");
}

#[test]
fn f3_12_filter_runs_only_tests_with_that_text() {
    // Guarantees that `--filter` decides what runs and so the exit code.
    let place = TestDir::new();
    let config = place.write("pipeline.toml", &format!("{UNSET}{TESTS}"));
    let (code, stdout, _) = run(&["test", "--filter", "signup"], &config);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("1 passed, 0 failed") && !stdout.contains("an order"), "{stdout}");
}

#[test]
fn f3_12_rules_that_no_test_fires_are_named() {
    // Guarantees that a whole run names the rules without a test, and why a test failed.
    let place = TestDir::new();
    let config = place.write("pipeline.toml", &format!("{UNSET}{TESTS}"));
    let (code, stdout, stderr) = run(&["test"], &config);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("no test fires these rules: `never & tested` of sink crm"), "{stderr}");
    assert!(stdout.contains("signup: `.kind` is \"order\", must equal \"signup\""), "{stdout}");
}

#[test]
fn f3_12_junit_file_is_well_formed_and_has_every_result() {
    // Guarantees that build servers can read names and failures, also with characters of XML.
    let place = TestDir::new();
    let config = place.write("pipeline.toml", &format!("{UNSET}{TESTS}"));
    let junit = place.path().join("results.xml");
    let (code, ..) = run(&["test", "--junit", junit.to_str().unwrap()], &config);
    assert_eq!(code, Some(1));
    let text = std::fs::read_to_string(&junit).unwrap();
    let mut reader = quick_xml::Reader::from_str(&text);
    let (mut cases, mut failures) = (Vec::new(), 0);
    loop {
        use quick_xml::events::Event;
        match reader.read_event().expect("well-formed XML") {
            Event::Eof => break,
            Event::Start(tag) | Event::Empty(tag) => match tag.name().as_ref() {
                b"testcase" => {
                    let name = tag.try_get_attribute("name").unwrap().unwrap();
                    cases.push(
                        name.normalized_value(quick_xml::XmlVersion::Implicit1_0)
                            .unwrap()
                            .into_owned(),
                    );
                }
                b"failure" => failures += 1,
                _ => {}
            },
            _ => {}
        }
    }
    assert_eq!(cases, ["a signup <ok>", "an order"], "{text}");
    assert_eq!(failures, 1, "{text}");
    assert!(text.contains("tests=\"2\"") && text.contains("failures=\"1\""), "{text}");
}

#[test]
fn explain_shows_what_was_left_out_of_a_dead_letter() {
    // Guarantees that values dropped before the error are shown: often they are its cause.
    let place = TestDir::new();
    let rule = "\"traits.age\" = { path = \".age\", as = \"integer\" }\n\"traits.zip\" = { path = \".zip\", required = true }\n";
    let config = place.write("pipeline.toml", &format!("{UNSET}{rule}"));
    let record = "{\"kind\":\"signup\",\"id\":\"u1\",\"email\":\"a@b.c\",\"age\":\"young\"}\n";
    let records = place.write("one.ndjson", record);
    let (code, stdout, stderr) =
        run(&["explain", "--format", "json", records.to_str().unwrap()], &config);
    assert_eq!(code, Some(0), "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(report["errors"][0].as_str().unwrap().contains("traits.zip"), "{report}");
    assert_eq!(report["left_out"][0]["field"], "traits.age", "{report}");
    assert!(report["left_out"][0]["reason"].as_str().unwrap().contains("young"), "{report}");
}
