//! Rows 5 and 17: the command `dead-letters`.

use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use super::{pipeline, run};
use crate::support::{EmulatorAccount, TestDir};

const RULES: &str = r#"
unmatched = "dead_letter"
[[sinks.crm.mapping]]
name = "signup"
when = { ".kind" = "signup" }
call = "identify"
[sinks.crm.mapping.fields]
user_id = ".id"
"traits.email" = { path = ".email", required = true }
"#;

/// Seventy records without an e-mail and two that no rule wants, all dead letters.
async fn with_dead_letters(place: &TestDir) -> (EmulatorAccount, std::path::PathBuf) {
    let account = EmulatorAccount::open(Faults::default()).await;
    let config = pipeline(place, &account, RULES);
    let mut records: String =
        (0..70).map(|n| format!("{{\"kind\":\"signup\",\"id\":\"u{n}\"}}\n")).collect();
    records += "{\"kind\":\"other\"}\n{\"kind\":\"other\"}\n";
    place.write("records.ndjson", &records);
    let output = place.run_once(&config, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    (account, config)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_05_list_summary_counts_by_reason_rule_and_field() {
    // Guarantees that seventy records that fail alike are one line, with a number and an example.
    let place = TestDir::new();
    let (account, config) = with_dead_letters(&place).await;
    let (code, stdout, stderr) =
        run(&["dead-letters", "list", "--summary", "--format", "json"], &config);
    assert_eq!(code, Some(0), "{stderr}");
    let causes = lines(&stdout);
    assert_eq!(causes.len(), 2, "{stdout}");
    let first = &causes[0];
    assert_eq!(
        (&first["count"], &first["reason"], &first["rule"], &first["field"]),
        (&json!(70), &json!("missing_required"), &json!("signup"), &json!("traits.email"))
    );
    assert_eq!((&causes[1]["count"], &causes[1]["reason"]), (&json!(2), &json!("unmatched")));
    // The id leads to the last one.
    let last = first["last_id"].to_string();
    let (code, stdout, _) = run(&["dead-letters", "show", &last, "--format", "json"], &config);
    assert_eq!(code, Some(0));
    assert_eq!(lines(&stdout)[0]["detail"], first["detail"]);
    let (_, text, _) = run(&["dead-letters", "list", "--summary"], &config);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.starts_with("COUNT  SINK  REASON"), "{text}");
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_05_purge_needs_a_selection_and_reasons_that_exist() {
    // Guarantees that `purge` deletes all only on request, and that a misspelt reason is an error
    // that names the right one, while a known reason without dead letters is none.
    let place = TestDir::new();
    let (account, config) = with_dead_letters(&place).await;
    let count = || run(&["dead-letters", "list", "--format", "json"], &config).1.lines().count();
    let (code, _, stderr) = run(&["dead-letters", "purge"], &config);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--all"), "{stderr}");
    for command in ["list", "show", "export", "replay", "purge"] {
        let (code, stdout, stderr) =
            run(&["dead-letters", command, "--reason", "mising_required"], &config);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{command}: {stderr}");
        assert!(stderr.contains("did you mean `missing_required`?"), "{command}: {stderr}");
    }
    let (code, _, stderr) = run(&["dead-letters", "list", "--reason", "zzzzzzzzzz"], &config);
    assert_eq!(code, Some(2), "{stderr}");
    let has = "unknown reason `zzzzzzzzzz`; the dead letters have missing_required, unmatched";
    assert!(stderr.contains(has), "{stderr}");
    for (since, code, lines) in [
        ("2026-01-01", 0, 72),
        ("2026-01-01T00:00:00", 0, 72),
        ("2126-01-01T00:00:00+02:00", 0, 0),
        ("yesterday", 2, 0),
    ] {
        let list = ["dead-letters", "list", "--format", "json", "--since", since];
        let (got, stdout, stderr) = run(&list, &config);
        assert_eq!((got, stdout.lines().count()), (Some(code), lines), "{since}: {stderr}");
        assert!(code == 0 || stderr.contains("2026-01-01T00:00:00Z"), "{stderr}");
    }
    assert_eq!(count(), 72);
    let (code, stdout, _) = run(&["dead-letters", "purge", "--reason", "status_400"], &config);
    assert_eq!((code, stdout.as_str()), (Some(0), "0 purged\n"));
    let (code, stdout, _) = run(&["dead-letters", "purge", "--reason", "unmatched"], &config);
    assert_eq!((code, stdout.as_str()), (Some(0), "2 purged\n"));
    let (code, stdout, _) = run(&["dead-letters", "purge", "--all"], &config);
    assert_eq!((code, stdout.as_str()), (Some(0), "70 purged\n"));
    let (code, stdout, stderr) = run(&["dead-letters", "list"], &config);
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    assert!(stderr.contains("no dead letters"), "{stderr}");
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_17_list_has_a_header_and_colours() {
    // Guarantees a header over aligned columns, and that `--color` counts for results too.
    let place = TestDir::new();
    let (account, config) = with_dead_letters(&place).await;
    let (_, plain, _) = run(&["dead-letters", "list"], &config);
    let header = plain.lines().next().unwrap();
    assert!(header.starts_with("ID") && header.ends_with("DETAIL"), "{plain}");
    let column = header.find("REASON").unwrap();
    assert!(plain.lines().skip(1).take(70).all(|line| line[column..].starts_with("missing_req")));
    assert!(!plain.contains('\u{1b}'));
    let records = place.path().join("records.ndjson");
    for args in [
        &["dead-letters", "list", "--color", "always"][..],
        &["explain", "--color", "always", records.to_str().unwrap()],
    ] {
        let (code, coloured, _) = run(args, &config);
        assert_eq!(code, Some(0));
        assert!(coloured.contains("\u{1b}["), "{args:?}");
    }
    account.close().await;
}
