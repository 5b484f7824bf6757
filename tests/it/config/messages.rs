//! What people and machines are shown.

use usercom_sink::config::fault::{Fault, Target};
use usercom_sink::config::{SourceText, Style, load};

use super::{GOOD, environment, load_text, no_mapping_faults};

fn refused(name: &str, text: &str) -> String {
    let report = load_text(name, text).expect_err("the text has faults");
    report.render(Style::Plain)
}

const SIX: &str = r#"[sources.app]
type = "stdin"

[sinks.crm]
type = "usercom"
inputs = ["ap"]
app = "acme"
api_key = "${NOT_SET}"
preset = "segmnt"

[sinks.crm.request]
rate_limit = 10
timeout_secs = "30"

[[sinks.crm.mapping]]
call = "trak"
fields = { user_id = ".u" }
"#;

#[test]
fn six_mistakes_are_six_faults_with_positions() {
    // Every fault of a file is reported at once, in the order of the file, with caret and help.
    let report = load_text("pipeline.toml", SIX).expect_err("six mistakes");
    assert_eq!(report.errors(), 6);
    insta::assert_snapshot!("six_mistakes", report.render(Style::Plain));
    let coloured = report.render(Style::Coloured);
    assert!(coloured.contains("\u{1b}["), "coloured output has colours");
}

#[test]
fn mistake_is_reported_once() {
    // What follows from a mistyped key or name is not reported next to it.
    for (text, codes) in [
        (
            "[sources.app]\ntype = 'stdin'\n[sinks.crm]\ntype = 'usercom'\ninputz = ['app']\nhost = 'x'\nkey = 'k'\nmaping = []\n",
            &["E0101", "E0109", "E0109", "E0101"][..],
        ),
        (
            "[sources.app]\ntype = 'stdin'\n[sinks.crm]\ntype = 'usercom'\ninputs = ['ap']\nendpont = 'x'\napi_kye = 'k'\npreset = 'x'\n",
            &["E0301", "E0101", "E0101", "E0104"],
        ),
    ] {
        let report = load_text("p.toml", text).expect_err("mistakes");
        let found: Vec<_> = report.diagnostics().iter().map(|d| d.code).collect();
        assert_eq!(found, codes, "{}", report.render(Style::Plain));
    }
}

#[test]
fn faults_as_json_have_stable_fields() {
    // Machines get code, place, message and help of each fault.
    let report = load_text("p.toml", &format!("color = 1\n{GOOD}")).expect_err("a mistake");
    assert_eq!(
        report.to_json(),
        serde_json::json!([{
            "severity": "error",
            "code": "E0101",
            "file": "p.toml",
            "line": 1,
            "column": 1,
            "message": "unknown key `color`",
            "help": "the known keys are: `api`, `data_dir`, `sinks`, `sources` or `tests`",
        }])
    );
}

#[test]
fn syntax_error_has_a_position_in_every_format() {
    // A broken file shows where it breaks, and no more than three times.
    let texts = [
        ("p.toml", "[sources\nx = \ny = 'a\nz = ]\n[[sinks]\n"),
        ("p.json", "{\n  \"a\": 1,\n}"),
        ("p.yaml", "a: [1\nb: {"),
    ];
    let mut shown = String::new();
    for (name, text) in texts {
        let report = load_text(name, text).expect_err(name);
        assert!((1..=3).contains(&report.errors()), "{name}");
        assert!(report.diagnostics().iter().all(|d| d.code == "E0002" && d.line > 0));
        shown.push_str(&report.render(Style::Plain));
    }
    insta::assert_snapshot!("syntax_errors", shown);
}

#[test]
fn duplicate_key_is_rejected_in_every_format() {
    // A key that is listed twice is never silently the later one.
    for (name, text, line) in [
        ("p.toml", "data_dir = 'a'\ndata_dir = 'b'\n", 2),
        ("p.json", "{\"data_dir\": \"a\",\n \"data_dir\": \"b\"}", 2),
        ("p.yaml", "data_dir: a\ndata_dir: b\n", 2),
    ] {
        let report = load_text(name, text).expect_err(name);
        let fault = &report.diagnostics()[0];
        assert_eq!((fault.code, fault.line), ("E0002", line), "{name}");
        assert!(fault.message.contains("duplicate key"), "{name}: {}", fault.message);
    }
}

#[test]
fn positions_are_right_in_json_and_yaml() {
    // The same mistakes are shown at their own lines in the other notations.
    let json = "{\n  \"sources\": { \"é\": {\n    \"type\": \"stdin\" } },\n  \"sinks\": {\n    \"crm\": { \"type\": \"usercom\", \"inputz\": [] }\n  }\n}";
    let yaml = "# é\nsources:\n  app:\n    type: stdin\n    max_line_bytes: lots\nsinks:\n  crm:\n    type: usercom\n    inputs: [ap]\n    app: acme\n    api_key: k\n    preset: segment\n";
    insta::assert_snapshot!("json_places", refused("p.json", json));
    insta::assert_snapshot!("yaml_places", refused("p.yaml", yaml));
}

#[test]
fn several_files_make_one_pipeline() {
    // Sources and sinks of several files come together; a fault names the file it is in.
    let sources = SourceText::new("sources.toml", "[sources.app]\ntype = 'stdin'\n");
    let sinks = SourceText::new(
        "sinks.yaml",
        "sinks:\n  crm:\n    type: usercom\n    inputs: [app]\n    app: acme\n    api_key: ${KEY}\n    preset: segment\n",
    );
    let files = [sources.clone(), sinks.clone()];
    let loaded = load(&files, &environment(), &no_mapping_faults).expect("a whole pipeline");
    assert_eq!(loaded.pipeline.sinks.len(), 1);

    let again = SourceText::new("more.toml", "\n[sources.app]\ntype = 'stdin'\n");
    let report = load(&[sources, sinks, again], &environment(), &no_mapping_faults)
        .expect_err("`app` is listed twice");
    let [fault] = report.diagnostics() else {
        panic!("{:?}", report.diagnostics());
    };
    let place = (fault.code, fault.file.as_deref(), fault.line);
    assert_eq!(place, ("E0003", Some("more.toml"), 2));
}

#[test]
fn mapping_fault_points_inside_its_string() {
    // A part of a string is shown by itself, after escapes; a rule that is broken elsewhere does
    // not hide or shift the faults of the next.
    let text = format!(
        "{GOOD}[[sinks.crm.mapping]]\nfields = {{}}\n\
         [[sinks.crm.mapping]]\ncall = 'track'\nfields = {{ event = \".a\\t.b\" }}\n"
    );
    let report = load(&[SourceText::new("p.toml", text)], &environment(), &|at, sink| {
        assert_eq!(sink.mapping.len(), 2, "both rules are compiled");
        assert_eq!(sink.mapping[1].name.as_deref(), Some("rule 2"));
        vec![Fault {
            code: "E0203",
            path: at.key("mapping").index(1).key("fields").key("event"),
            target: Target::Part(3..5),
            message: "a path with a tab in it".into(),
            help: None,
        }]
    })
    .expect_err("two faults");
    let lines = GOOD.lines().count();
    let found: Vec<_> =
        report.diagnostics().iter().map(|d| (d.code, d.line - lines, d.column)).collect();
    assert_eq!(found, [("E0102", 1, 1), ("E0203", 5, 25)]);
}

#[test]
fn secret_in_faulty_file_is_not_shown() {
    // Neither a key in the file, nor one under a mistyped name, nor one from outside, is in any
    // message or source line, in any notation, whether or not the file can be parsed.
    let secret = "hunter2-very-secret";
    let toml = |line: &str| {
        format!(
            "[sources.a]\ntype = 'stdin'\n[sinks.crm]\ntype = 'usercom'\n{line}\ninputs = ['x']\n"
        )
    };
    let texts = [
        ("p.toml", toml(&format!("api_key = '{secret}'"))),
        ("p.toml", toml(&format!("api_kye = '{secret}'"))),
        ("p.toml", toml(&format!("apikey = '{secret}'"))),
        ("p.toml", toml(&format!("key = '{secret}'"))),
        ("p.toml", toml(&format!("token = ['{secret}']"))),
        ("p.toml", toml(&format!("auth = {{ password = '{secret}' }}"))),
        ("p.toml", toml(&format!("api_key = '''\n{secret}\n'''"))),
        ("p.toml", toml(&format!("api_key = '${{NOT_SET:-{secret}}} x'"))),
        ("p.toml", toml("api_key = ${KEY}")),
        ("p.toml", toml(&format!("api_key = '{secret}"))),
        ("p.toml", toml(&format!("api_key = {secret}"))),
        ("p.toml", toml(&format!("api_key = '''\n{secret}"))),
        ("p.toml", toml(&format!("request = {{ timeout_secs = 'x', api_key = '{secret}' }}"))),
        ("p.json", format!("{{\"sinks\": {{\"crm\": {{\"api_key\": \"{secret}\", \"x\": 1}}}}}}")),
        ("p.json", format!("{{\"sinks\": {{\"crm\": {{\"api_key\": \"{secret}\" \"x\": 1}}}}}}")),
        ("p.yaml", format!("sinks:\n  crm:\n    api_key: {secret}\n    x: 1\n")),
        ("p.yaml", format!("sinks:\n  crm:\n    api_key: |\n      {secret}\n    x: [\n")),
    ];
    for (name, text) in texts {
        let report = load_text(name, &text).expect_err("a faulty file");
        let rendered = report.render(Style::Plain);
        let json = report.to_json().to_string();
        for shown in [rendered, json, format!("{report:?}")] {
            assert!(!shown.contains("hunter2"), "{text}\n{shown}");
            assert!(!shown.contains("s3cr3t"), "{text}\n{shown}");
        }
    }
}

#[test]
fn redacted_secret_leaves_its_line_readable() {
    // The line is shown with the value covered, and a bare `${VAR}` is no secret.
    let text = GOOD.replace("api_key = \"${KEY}\"", "api_kye = 'hunter2'");
    let rendered = refused("p.toml", &text);
    assert!(rendered.contains("api_kye = '*******'"), "{rendered}");
    let text = GOOD.replace("api_key", "api_kye");
    let rendered = refused("p.toml", &text);
    assert!(rendered.contains("api_kye = \"${KEY}\""), "{rendered}");
}

#[test]
fn environment_value_is_not_quoted_in_faults() {
    // A fault about a value that came from the environment shows the `${}`, as the file does; also
    // a fault of the mapping, whose author cannot know where its text came from.
    let text = format!("{GOOD}[sinks.crm.buffer]\ntype = '${{KEY}}'\n");
    let report = load(&[SourceText::new("p.toml", text)], &environment(), &|at, _| {
        vec![Fault {
            code: "E0299",
            path: at.clone(),
            target: Target::Value,
            message: "found s3cr3t-key here".into(),
            help: Some("not s3cr3t-key".into()),
        }]
    })
    .expect_err("an unknown word");
    assert_eq!(report.errors(), 2);
    let rendered = report.render(Style::Plain);
    assert!(rendered.contains("${KEY}"), "{rendered}");
    assert!(!format!("{rendered}{report:?}").contains("s3cr3t"), "{rendered}");
}

#[test]
fn control_characters_are_escaped_in_output() {
    // An escape sequence in a file is shown, not obeyed.
    let text = format!("\"x\\u001b[31m\\nsecond line\" = 1\n{GOOD}");
    let rendered = refused("p.toml", &text);
    assert!(!rendered.contains('\u{1b}'), "{rendered:?}");
    assert!(rendered.contains("unknown key"), "{rendered}");
}

#[test]
fn unreadable_file_is_a_fault() {
    // A missing file is reported by name, without a place.
    let missing = std::path::Path::new("/nonexistent/pipeline.toml");
    let report = SourceText::read(missing).expect_err("it does not exist");
    let rendered = report.render(Style::Plain);
    assert!(
        rendered.starts_with("error[E0001]: cannot read /nonexistent/pipeline.toml"),
        "{rendered}"
    );
    assert!(rendered.ends_with("1 error\n"), "{rendered}");
}
