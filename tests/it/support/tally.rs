//! Compares delivered with sent records: which numbered records are lost, doubled or out of order
//! in the account.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

use super::EmulatorAccount;

/// Numbered records of several users: of ten, eight tracks, an identify and a page. The number of a
/// record is its index in the input, so each user's numbers grow.
pub(crate) fn records(count: usize, users: usize) -> Vec<Value> {
    let start: jiff::Timestamp = "2026-08-20T08:00:00Z".parse().unwrap();
    (0..count).map(|n| record(n, (n * 7 + n / users) % users, start)).collect()
}

fn record(n: usize, user: usize, start: jiff::Timestamp) -> Value {
    let at = start + jiff::SignedDuration::from_secs(i64::try_from(n).unwrap());
    let mut record = json!({
        "messageId": format!("m-{n}"), "userId": format!("user-{user}"),
        "timestamp": at.to_string(),
    });
    // By a number that is not in step with the users.
    match (n / 3) % 10 {
        0 => {
            record["type"] = "identify".into();
            record["traits"] = json!({ "last_number": n.to_string() });
        }
        1 => {
            record["type"] = "page".into();
            record["properties"] = json!({ "url": format!("https://shop.example.com/p/{n}") });
        }
        _ => {
            record["type"] = "track".into();
            record["event"] = "Numbered".into();
            record["properties"] = json!({ "number": n.to_string() });
        }
    }
    record
}

/// The result of a comparison.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: usize,
    /// Events and page views in the account.
    pub(crate) landed: u64,
    /// Numbers of records that are neither in the account nor in the dead letters.
    pub(crate) lost: Vec<usize>,
    /// Page views that are in the account less often than they were sent.
    pub(crate) views_lost: u64,
    /// Events and page views beyond the first of each.
    pub(crate) doubled: u64,
    /// Events that stand after one with a larger number.
    pub(crate) disordered: Vec<usize>,
    /// Users whose profile does not show their last identify.
    pub(crate) stale: Vec<String>,
    /// Records in the dead letters.
    pub(crate) dead: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records sent, {} events and views landed, {} dead letters; lost {}, doubled {}, \
             out of order {}, stale profiles {}",
            self.sent,
            self.landed,
            self.dead,
            self.lost.len() as u64 + self.views_lost,
            self.doubled,
            self.disordered.len(),
            self.stale.len(),
        )
    }
}

impl Tally {
    /// Compares. `dead` are the numbers in the dead letters.
    pub(crate) async fn take(
        account: &EmulatorAccount,
        sent: &[Value],
        dead: &BTreeSet<usize>,
    ) -> Self {
        let mut tally = Self { sent: sent.len(), dead: dead.len(), ..Self::default() };
        let mut expected: BTreeMap<&str, Expected> = BTreeMap::new();
        for (n, record) in sent.iter().enumerate() {
            if dead.contains(&n) {
                continue;
            }
            let user = expected.entry(record["userId"].as_str().unwrap()).or_default();
            match record["type"].as_str().unwrap() {
                "track" => user.events.push(n),
                "page" => user.views += 1,
                _ => user.identify = Some(n),
            }
        }
        let mut users: BTreeMap<String, Value> = account
            .all("users/")
            .await
            .into_iter()
            .map(|user| (user["custom_id"].as_str().unwrap().to_owned(), user))
            .collect();
        for (id, expected) in expected {
            let user = users.remove(id).unwrap_or_default();
            let mut events = Vec::new();
            if let Some(number) = user["id"].as_u64() {
                events = account.all(&format!("users/{number}/events/")).await;
            }
            tally.compare(id, &expected, &user, events);
        }
        tally
    }

    fn compare(&mut self, id: &str, expected: &Expected, user: &Value, mut events: Vec<Value>) {
        events.sort_by_key(|event| event["id"].as_u64());
        let numbers = events.iter().map(|event| event["data"]["number"].as_str().unwrap());
        let numbers: Vec<usize> = numbers.map(|number| number.parse().unwrap()).collect();
        let mut seen = BTreeSet::new();
        for number in &numbers {
            if seen.last().is_some_and(|last| last > number) && !seen.contains(number) {
                self.disordered.push(*number);
            }
            if !seen.insert(*number) {
                self.doubled += 1;
            }
        }
        self.landed += numbers.len() as u64;
        self.lost.extend(expected.events.iter().filter(|n| !seen.contains(n)));
        let views = user["page_views"].as_u64().unwrap_or_default();
        self.landed += views;
        self.doubled += views.saturating_sub(expected.views);
        self.views_lost += expected.views.saturating_sub(views);
        let shown = user["last_number"].as_str().and_then(|text| text.parse().ok());
        if expected.identify != shown {
            self.stale.push(id.to_owned());
        }
    }

    /// Asserts that every record is there, in order; doubles are allowed.
    pub(crate) fn assert_whole(&self) {
        assert!(self.lost.is_empty() && self.views_lost == 0, "{self}: {:?}", self.lost);
        assert!(self.disordered.is_empty(), "{self}: {:?}", self.disordered);
        assert!(self.stale.is_empty(), "{self}: {:?}", self.stale);
    }

    /// Asserts that every record is there once, in order.
    pub(crate) fn assert_exact(&self) {
        self.assert_whole();
        assert_eq!(self.doubled, 0, "{self}");
    }
}

#[derive(Debug, Default)]
struct Expected {
    events: Vec<usize>,
    views: u64,
    identify: Option<usize>,
}
