//! Some hundred records of all kinds, and what an account must hold once they are delivered.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Users of the load.
pub(super) const USERS: usize = 24;

/// What must be true of the account at the end.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Names of events and paths of pages in order, by user.
    pub(super) entries: BTreeMap<String, Vec<String>>,
    /// Last value of the trait `plan`, by user.
    pub(super) plans: BTreeMap<String, String>,
    pub(super) members: BTreeSet<(String, String)>,
    /// Every user named.
    pub(super) users: BTreeSet<String>,
}

/// So many records; the same every time.
pub(super) fn records(count: usize) -> Vec<Value> {
    (0..count)
        .map(|n| {
            // A walk through all users that does not go round in order.
            let user = format!("u{}", (n * 7 + n / 5) % USERS);
            let minute = n / 60;
            let second = n % 60;
            let at = format!("2024-05-21T10:{minute:02}:{second:02}Z");
            let mut record = match n % 8 {
                0 => json!({"type": "identify", "traits": {
                    "email": format!("{user}@shop.example"), "plan": format!("plan{n}"), "seats": n,
                }}),
                1 | 4 => json!({"type": "page", "properties": {
                    "url": format!("https://shop.example/p{n}"),
                }}),
                6 if n % 16 == 6 => json!({"type": "group", "groupId": format!("g{}", n % 5),
                    "traits": {"name": format!("Company {}", n % 5)}}),
                _ => json!({"type": "track", "event": format!("e{n}"), "properties": {"n": n}}),
            };
            record["userId"] = json!(user);
            record["messageId"] = json!(format!("m{n}"));
            record["timestamp"] = json!(at);
            record
        })
        .collect()
}

/// Reads off the records what they must come to.
pub(super) fn expected(records: &[Value]) -> Expected {
    let mut expected = Expected::default();
    for record in records {
        let user = record["userId"].as_str().unwrap().to_owned();
        expected.users.insert(user.clone());
        match record["type"].as_str().unwrap() {
            "identify" => {
                let plan = record["traits"]["plan"].as_str().unwrap().to_owned();
                expected.plans.insert(user, plan);
            }
            "group" => {
                let company = record["groupId"].as_str().unwrap().to_owned();
                expected.members.insert((company, user));
            }
            "track" => {
                let name = record["event"].as_str().unwrap().to_owned();
                expected.entries.entry(user).or_default().push(name);
            }
            _ => {
                let url = record["properties"]["url"].as_str().unwrap();
                let path = url.trim_start_matches("https://shop.example").to_owned();
                expected.entries.entry(user).or_default().push(path);
            }
        }
    }
    expected
}
