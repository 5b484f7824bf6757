//! A second opinion: the built program against an account that shares nothing with the emulator nor
//! with the client. Each row of the table is one way in which User.com may answer otherwise; each is
//! a property over a run of some hundred records of all kinds, with faults.

#![expect(clippy::print_stdout, reason = "the figures are half of what these tests are for")]

mod behaviour;
mod load;
mod routes;
mod rows;
mod server;
mod unusable;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use self::load::Expected;
use self::rows::{Allowed, Length, Row};
use self::server::{Account, State};
use crate::support::{TestDir, binary, mix, usercom_sink};

/// How long a run may take before it counts as one that never ends.
const RUN_TIMEOUT: Duration = Duration::from_secs(150);
/// Rows that run at the same time: most of their time they wait.
const ROWS_AT_ONCE: usize = 16;

/// Events and page views that did not arrive once.
#[derive(Default)]
struct Entries {
    lost: usize,
    doubled: usize,
}

/// What a row came to.
struct Result {
    name: &'static str,
    took: Duration,
    requests: usize,
    dead_letters: usize,
    entries: Entries,
    faults: Vec<String>,
}

#[test]
fn account_that_answers_otherwise_gets_every_record_once() {
    // Whichever way the account answers: nothing is lost, doubled or out of order, no dead letter
    // that the row does not justify, other routes and users are served, and the run ends by itself.
    hold(200, |row| row.length == Length::Short);
}

#[test]
#[ignore = "takes ten minutes"]
fn soak_account_that_answers_otherwise_gets_every_record_once() {
    // The same over ten times as many records, and further rows.
    hold(2_400, |_| true);
}

/// Runs all rows, or those whose name holds the text of the variable `ROW`, and prints the table.
fn hold(records: usize, is_run: fn(&Row) -> bool) {
    let only = std::env::var("ROW").ok();
    let wanted = |row: &Row| only.as_deref().map_or(is_run(row), |only| row.name.contains(only));
    let rows: Vec<Row> = rows::all().into_iter().filter(wanted).collect();
    let count = rows.len();
    let waiting = Mutex::new(rows.into_iter());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..ROWS_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(row) = waiting.lock().unwrap().next() else { return };
                    let result = run(row, records);
                    results.lock().unwrap().push(result);
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|result| result.name);
    println!(
        "{:<58} {:>8} {:>4} {:>7} {:>12} {:>7}  result",
        "row", "requests", "lost", "doubled", "dead letters", "seconds"
    );
    for Result { name, took, requests, dead_letters, entries, faults } in &results {
        let verdict = if faults.is_empty() { "holds" } else { "FAILS" };
        let (lost, doubled, took) = (entries.lost, entries.doubled, took.as_secs_f64());
        println!(
            "{name:<58} {requests:>8} {lost:>4} {doubled:>7} {dead_letters:>12} {took:>7.1}  {verdict}"
        );
        for fault in faults {
            println!("    {fault}");
        }
    }
    let failed = results.iter().filter(|result| !result.faults.is_empty());
    let failed: Vec<&str> = failed.map(|result| result.name).collect();
    assert_eq!(results.len(), count);
    assert!(failed.is_empty(), "{} of {count} rows fail: {failed:?}", failed.len());
}

fn run(row: Row, count: usize) -> Result {
    let name = row.name;
    let records = load::records(count);
    let mut expected = load::expected(&records);
    let account = Account::start(row.behaviour);
    let place = TestDir::new();
    place.write("records.ndjson", &mix::lines(&records));
    let sink = format!(
        "preset = \"segment\"\n\
         request = {{ timeout_secs = 3, retry_initial_backoff_secs = 1, \
         retry_max_duration_secs = 2 }}\n{}",
        row.settings
    );
    let config = place.pipeline(&account.stub.endpoint(), &sink);
    let begin = Instant::now();
    let stderr = place.path().join("stderr");
    let mut child = binary()
        .args(["run", "-c", config.to_str().unwrap(), "--once", "--format", "json"])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    let mut faults = Vec::new();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if begin.elapsed() > RUN_TIMEOUT => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let took = begin.elapsed();
    match status {
        None => faults.push("the run does not end".to_owned()),
        Some(status) if status.code() != Some(row.exit_code) => {
            faults.push(format!("it ended with {status}"));
        }
        Some(_) => {}
    }
    let log = std::fs::read_to_string(&stderr).unwrap();
    for word in row.says {
        if !log.contains(word) {
            faults.push(format!("the log does not say {word:?}"));
        }
    }
    if log.contains(crate::support::KEY) {
        faults.push("the log shows the key".to_owned());
    }
    let listed = listed_letters(config.to_str().unwrap());
    if listed.contains(crate::support::KEY) {
        faults.push("a dead letter shows the key".to_owned());
    }
    let letters: Vec<Value> =
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let justified = |letter: &Value| {
        let reason = letter["reason"].as_str().unwrap_or_default();
        row.dead_letters.iter().any(|known| reason.starts_with(known))
    };
    for letter in letters.iter().filter(|letter| !justified(letter)).take(3) {
        faults.push(format!("a dead letter without need: {}", letter["message"]));
    }
    for letter in letters.iter().filter(|letter| justified(letter)) {
        forgive(&mut expected, letter);
    }
    let entries = account.look(|state| compare(&expected, state, row.allowed, &mut faults));
    if let Some(limit) = row.others_within {
        account.look(|state| served(state, limit, &mut faults));
    }
    let requests = account.stub.seen().len();
    if !faults.is_empty() {
        let lines = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
        faults.extend(lines.take(4).map(|line| format!("| {line}")));
    }
    Result { name, took, requests, dead_letters: letters.len(), entries, faults }
}

/// Whether everything of the users of the second half was taken in time.
fn served(state: &State, limit: Duration, faults: &mut Vec<String>) {
    let began = state.began.unwrap();
    let is_other = |own_id: &str| own_id[1..].parse::<u32>().is_ok_and(|n| n >= 12);
    let others = state.users.iter().filter(|user| user.own_id.as_deref().is_some_and(is_other));
    let entries = others.flat_map(|user| state.entries.get(&user.number).into_iter().flatten());
    let last = entries.map(|entry| entry.taken.duration_since(began)).max().unwrap_or_default();
    if last > limit {
        faults.push(format!("others were served only after {last:?}"));
    }
}

fn listed_letters(config: &str) -> String {
    let listed = usercom_sink(&["dead-letters", "list", "-c", config, "--format", "json"]);
    String::from_utf8(listed.stdout).unwrap()
}

/// A record that may be a dead letter need not be in the account.
fn forgive(expected: &mut Expected, letter: &Value) {
    let text = letter.to_string().replace('\\', "");
    for entries in expected.entries.values_mut() {
        entries.retain(|name| {
            let of_page = format!("shop.example{name}\"");
            let of_event = format!("\"{name}\"");
            ![of_page, of_event].iter().any(|part| text.contains(part))
        });
    }
    expected.plans.retain(|_, plan| !text.contains(&format!("\"{plan}\"")));
    expected.members.retain(|(company, user)| {
        ![company, user].iter().all(|id| text.contains(&format!("\"{id}\"")))
    });
}

/// Holds what the account has against what it must have.
fn compare(
    expected: &Expected,
    state: &State,
    allowed: Allowed,
    faults: &mut Vec<String>,
) -> Entries {
    let mut entries = Entries::default();
    let mut numbers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for user in &state.users {
        if let Some(id) = &user.own_id {
            numbers.entry(id).or_default().push(user.number);
        }
    }
    for (user, wanted) in &expected.entries {
        let of_user = numbers.get(user.as_str()).into_iter().flatten();
        let found: Vec<&str> = of_user
            .flat_map(|number| state.entries.get(number).into_iter().flatten())
            .map(|entry| entry.name.as_str())
            .collect();
        if found == *wanted {
            continue;
        }
        let count = |name: &str| found.iter().filter(|known| **known == name).count();
        let lost: Vec<&String> = wanted.iter().filter(|name| count(name) == 0).collect();
        let doubled: Vec<&String> = wanted.iter().filter(|name| count(name) > 1).collect();
        entries.lost += lost.len();
        entries.doubled += doubled.len();
        if allowed == Allowed::Doubles && lost.is_empty() {
            continue;
        }
        match (lost.is_empty(), doubled.is_empty()) {
            (true, true) => faults.push(format!("{user} out of order: {found:?} for {wanted:?}")),
            _ => faults.push(format!("{user}: lost {lost:?}, doubled {doubled:?}")),
        }
    }
    for user in &expected.users {
        let count = numbers.get(user.as_str()).map_or(0, Vec::len);
        if count != 1 {
            faults.push(format!("{user} has {count} records"));
        }
    }
    for (user, plan) in &expected.plans {
        let row = state.users.iter().find(|row| row.own_id.as_ref() == Some(user));
        let found = row.and_then(|row| row.fields.get("plan")).and_then(Value::as_str);
        if found != Some(plan) {
            faults.push(format!("{user} has the plan {found:?}, not {plan}"));
        }
    }
    for (company, user) in &expected.members {
        let company_row = state.companies.iter().find(|c| c.own_id.as_ref() == Some(company));
        let user_row = state.users.iter().find(|row| row.own_id.as_ref() == Some(user));
        let is_member = company_row.zip(user_row).is_some_and(|(company, user)| {
            state.members.contains(&(company.number, user.number))
                || user.fields.get("company_custom_id").and_then(Value::as_str)
                    == company.own_id.as_deref()
        });
        if !is_member {
            faults.push(format!("{user} is no member of {company}"));
        }
    }
    let mut companies: BTreeMap<&str, usize> = BTreeMap::new();
    for company in state.companies.iter().filter_map(|row| row.own_id.as_deref()) {
        *companies.entry(company).or_default() += 1;
    }
    for (company, _) in companies.iter().filter(|(_, count)| **count > 1) {
        faults.push(format!("company {company} stands twice"));
    }
    faults.truncate(12);
    entries
}
