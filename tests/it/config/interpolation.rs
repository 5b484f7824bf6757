//! `${}` in string values.

use std::io;
use std::path::Path;

use usercom_sink::config::{Environment, Report};

use super::load_with;

/// A world with a few variables and files.
struct World;

impl Environment for World {
    fn var(&self, name: &str) -> Option<String> {
        let value = match name {
            "KEY" => "s3cr3t-key",
            "EMPTY" => "",
            "NAME" => "acme",
            "LINES" => "one\ntwo-is-secret",
            "DOLLAR" => "${KEY}",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("/run/key") => Ok("from-file\n".to_owned()),
            Some("/run/crlf") => Ok("from-file\r\n".to_owned()),
            Some("/run/many") => Ok("top-secret\nlines\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn resolve(value: &str) -> Result<String, Report> {
    let text = format!(
        "[sources.app]\ntype = 'stdin'\n[sinks.crm]\ntype = 'usercom'\ninputs = ['app']\n\
         app = 'acme'\napi_key = 'k'\npreset = 'segment'\n\
         [[tests]]\nname = 't'\nsink = 'crm'\noutcome = 'unmatched'\nrecord = '{value}'\n"
    );
    load_with("p.toml", &text, &World).map(|loaded| {
        let record = loaded.pipeline.tests[0].record.as_ref().and_then(serde_json::Value::as_str);
        record.expect("text stays text").to_owned()
    })
}

#[test]
fn environment_values_are_resolved() {
    // Variables, defaults, files and the escape, and everything else stays as it is.
    for (written, expected) in [
        ("${NAME}", "acme"),
        ("https://${NAME}.user.com/${NAME}/", "https://acme.user.com/acme/"),
        ("${UNSET:-fallback}", "fallback"),
        ("${UNSET:-}", ""),
        ("${EMPTY:-fallback}", "fallback"),
        ("${EMPTY}", ""),
        ("${NAME:-fallback}", "acme"),
        ("${UNSET:-http://a:1/}", "http://a:1/"),
        ("${file:/run/key}", "from-file"),
        ("${file:/run/crlf}", "from-file"),
        ("$${NAME}", "${NAME}"),
        ("$$${NAME}", "$${NAME}"),
        ("a$${b}c${NAME}", "a${b}cacme"),
        // What a variable holds is not read again.
        ("${DOLLAR}", "${KEY}"),
        ("^a$|b$", "^a$|b$"),
        ("$NAME $1 {{ .x }}", "$NAME $1 {{ .x }}"),
        ("é${NAME}é", "éacmeé"),
    ] {
        match resolve(written) {
            Ok(value) => assert_eq!(value, expected, "{written}"),
            Err(report) => panic!("{written}: {:?}", report.diagnostics()),
        }
    }
}

#[test]
fn unresolved_value_is_a_fault_with_position() {
    // Each fault points at the `${` it is about and shows nothing of what a value holds.
    for (written, code, column) in [
        ("${UNSET}", "E0010", 11),
        ("ab${UNSET}", "E0010", 13),
        ("${file:/nowhere}", "E0011", 11),
        ("${NAME", "E0012", 11),
        ("${}", "E0012", 11),
        ("${1}", "E0012", 11),
        ("${A B}", "E0012", 11),
        ("${UNSET-x}", "E0012", 11),
        ("${UNSET:-${NAME}}", "E0012", 11),
        ("${LINES}", "E0013", 11),
        ("${file:/run/many}", "E0013", 11),
    ] {
        let report = resolve(written).expect_err(written);
        let [fault] = report.diagnostics() else {
            panic!("{written}: {:?}", report.diagnostics());
        };
        assert_eq!((fault.code, fault.line, fault.column), (code, 13, column), "{written}");
        assert!(fault.help.is_some(), "{written}");
        assert!(!format!("{report:?}").contains("secret"), "{written}");
    }
}

#[test]
fn two_faults_in_one_value_are_both_reported() {
    // One string with two unset variables is two faults.
    let report = resolve("${ONE} ${TWO}").expect_err("both are unset");
    let columns: Vec<_> = report.diagnostics().iter().map(|d| d.column).collect();
    assert_eq!(columns, [11, 18]);
}

#[test]
fn keys_are_not_interpolated() {
    // A key with `${}` in it stays what it is.
    let text = super::GOOD.to_owned()
        + "[[tests]]\nname = 't'\nsink = 'crm'\noutcome = 'unmatched'\nrecord = { '${KEY}' = 1 }\n";
    let loaded = load_with("p.toml", &text, &World).expect("a good file");
    assert_eq!(loaded.pipeline.tests[0].record, Some(serde_json::json!({ "${KEY}": 1 })));
}
