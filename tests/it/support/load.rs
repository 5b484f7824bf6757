//! A load whose arrival can be checked to the record, and the check.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::Account;

/// Records of several users, each numbered.
///
/// Record `n` belongs to user `n % users`. Most are events that carry their number; every tenth is
/// a page view, and every tenth an identify that writes its number into the profile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) records: usize,
    pub(crate) users: usize,
}

enum Kind {
    Event,
    Page,
    Profile,
}

impl Load {
    fn user(self, n: usize) -> String {
        format!("user-{}", n % self.users)
    }

    fn kind(self, n: usize) -> Kind {
        match (n / self.users) % 10 {
            3 => Kind::Page,
            7 => Kind::Profile,
            _ => Kind::Event,
        }
    }

    /// The record as Segment's JSON.
    pub(crate) fn record(self, n: usize) -> Value {
        let mut record = json!({
            "userId": self.user(n),
            "messageId": format!("message-{n}"),
            "timestamp": at(n),
        });
        let more = match self.kind(n) {
            Kind::Event => {
                json!({ "type": "track", "event": "Counted", "properties": { "n": n } })
            }
            Kind::Page => {
                let url = format!("https://example.com/{n}");
                json!({ "type": "page", "properties": { "url": url } })
            }
            Kind::Profile => json!({ "type": "identify", "traits": { "latest": n } }),
        };
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        record
    }

    /// All of it, a line each.
    pub(crate) fn lines(self) -> String {
        (0..self.records).map(|n| format!("{}\n", self.record(n))).collect()
    }

    /// What has become of it in an account.
    pub(crate) async fn tally(self, account: &Account) -> Tally {
        let users: BTreeMap<String, Value> = account
            .all("users/")
            .await
            .into_iter()
            .filter_map(|user| Some((user["custom_id"].as_str()?.to_owned(), user)))
            .collect();
        let mut tally = Tally::default();
        for u in 0..self.users.min(self.records) {
            let numbers = (u..self.records).step_by(self.users);
            let (mut events, mut pages, mut latest) = (Vec::new(), 0u64, None);
            for n in numbers {
                match self.kind(n) {
                    Kind::Event => events.push(n),
                    Kind::Page => pages += 1,
                    Kind::Profile => latest = Some(n.to_string()),
                }
            }
            let Some(user) = users.get(&self.user(u)) else {
                tally.lost += events.len() + usize::try_from(pages).unwrap();
                continue;
            };
            tally.events(&events, &arrived(account, user).await);
            let seen = user["page_views"].as_u64().unwrap();
            tally.lost += usize::try_from(pages.saturating_sub(seen)).unwrap();
            tally.doubled += usize::try_from(seen.saturating_sub(pages)).unwrap();
            if latest.is_some() && user["latest"].as_str() != latest.as_deref() {
                tally.stale += 1;
            }
        }
        tally
    }
}

fn at(n: usize) -> String {
    let base: jiff::Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    (base + jiff::SignedDuration::from_secs(i64::try_from(n).unwrap())).to_string()
}

/// The numbers of a user's events, in the order in which they arrived.
async fn arrived(account: &Account, user: &Value) -> Vec<usize> {
    let mut events = account.all(&format!("users/{}/events/", user["id"])).await;
    events.sort_by_key(|event| event["id"].as_u64());
    let number = |event: &Value| match &event["data"]["n"] {
        Value::String(n) => n.parse().unwrap(),
        n => usize::try_from(n.as_u64().unwrap()).unwrap(),
    };
    events.iter().map(number).collect()
}

/// What has become of a load.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Events and page views that did not arrive.
    pub(crate) lost: usize,
    /// Events and page views that arrived more than once, counted by the surplus.
    pub(crate) doubled: usize,
    /// Events that arrived before an earlier one of their user.
    pub(crate) out_of_order: usize,
    /// Users whose profile does not hold what was written last.
    pub(crate) stale: usize,
}

impl Tally {
    /// Every record arrived once, in its user's order.
    pub(crate) const WHOLE: Self = Self { lost: 0, doubled: 0, out_of_order: 0, stale: 0 };

    fn events(&mut self, expected: &[usize], arrived: &[usize]) {
        let mut first_arrivals: Vec<usize> = Vec::new();
        for n in arrived {
            if first_arrivals.contains(n) {
                self.doubled += 1;
            } else {
                first_arrivals.push(*n);
            }
        }
        self.lost += expected.iter().filter(|n| !first_arrivals.contains(n)).count();
        self.out_of_order += first_arrivals.windows(2).filter(|pair| pair[0] > pair[1]).count();
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, doubled, out_of_order, stale } = self;
        write!(
            f,
            "lost {lost}, doubled {doubled}, out of order {out_of_order}, stale profiles {stale}"
        )
    }
}
