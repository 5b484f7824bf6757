//! A realistic load in Segment's format: 1,000 records of 90 known and 10 anonymous users and 12
//! companies, 150 identifies, 500 tracks, 300 pages, 50 groups. The same every time.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The expected content of an account after a load.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Page views by external id.
    pub(crate) pages: BTreeMap<String, u64>,
    /// Time of the newest page by external id.
    pub(crate) last_seen: BTreeMap<String, jiff::Timestamp>,
    /// Names of events in order, by external id.
    pub(crate) events: BTreeMap<String, Vec<String>>,
    /// Company ids.
    pub(crate) companies: std::collections::BTreeSet<String>,
    /// Members by company id.
    pub(crate) members: std::collections::BTreeSet<(String, String)>,
}

/// Computes the expected content from a load.
pub(crate) fn expected(records: &[Value]) -> Expected {
    let mut expected = Expected::default();
    for record in records {
        let id = record["userId"].as_str().or(record["anonymousId"].as_str()).unwrap().to_owned();
        let at: jiff::Timestamp = record["timestamp"].as_str().unwrap().parse().unwrap();
        expected.pages.entry(id.clone()).or_default();
        match record["type"].as_str().unwrap() {
            "page" => {
                *expected.pages.entry(id.clone()).or_default() += 1;
                let newest = expected.last_seen.entry(id).or_insert(at);
                *newest = at.max(*newest);
            }
            "track" => {
                let name = record["event"].as_str().unwrap().to_owned();
                expected.events.entry(id).or_default().push(name);
            }
            "group" => {
                let company = record["groupId"].as_str().unwrap().to_owned();
                expected.companies.insert(company.clone());
                expected.members.insert((company, id));
            }
            _ => {}
        }
    }
    expected
}

/// A linear congruential generator, sufficient to mix a load.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
}

/// The load. `salt` is part of the message ids.
pub(crate) fn records(count: usize, salt: &str) -> Vec<Value> {
    let mut dice = Dice(42);
    let start: jiff::Timestamp = "2026-08-20T08:00:00Z".parse().unwrap();
    (0..count)
        .map(|n| {
            let user = dice.below(100);
            let at = start + jiff::SignedDuration::from_millis(i64::try_from(n).unwrap() * 1700);
            let anonymous = format!("9523fb8a-0137-49f3-a190-{user:012}");
            let path = ["/", "/pricing", "/docs", "/account/settings"][dice.below(4)];
            let mut record = json!({
                "messageId": format!("msg-{salt}-{n:05}"),
                "anonymousId": anonymous,
                "timestamp": at.to_string(),
                "integrations": { "All": true },
                "context": {
                    "ip": "203.0.113.7",
                    "locale": "en-GB",
                    "timezone": "Europe/Paris",
                    "userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:129.0) Gecko/20100101 Firefox/129.0",
                    "screen": { "width": 1280, "height": 800 },
                    "page": { "url": format!("https://shop.example.com{path}"), "path": path },
                },
            });
            if user < 90 {
                record["userId"] = format!("user-{user}").into();
            }
            let what = match dice.below(20) {
                0..3 => "identify",
                3..13 => "track",
                13..19 => "page",
                _ if user < 90 => "group",
                _ => "page",
            };
            record["type"] = what.into();
            match what {
                "identify" => {
                    record["traits"] = json!({
                        "email": format!("user{user}@example.com"),
                        "firstName": "Kasia", "lastName": "Smith", "gender": "F",
                        "address": { "city": "Paris", "state": "Île-de-France", "country": "FR" },
                        "plan": if dice.below(2) == 0 { "free" } else { "pro" },
                        "logins": dice.below(200), "newsletter": true,
                        "company": { "id": "acct-1", "name": "Company" },
                    });
                }
                "track" => {
                    record["event"] = ["Product Viewed", "Order Completed"][dice.below(2)].into();
                    record["properties"] = json!({
                        "sku": format!("sku-{}", dice.below(500)), "price": 5.25, "coupon": null, "is_gift": true,
                    });
                }
                "page" => {
                    record["name"] = path.into();
                    record["properties"] =
                        json!({ "url": format!("https://shop.example.com{path}"), "path": path });
                }
                _ => {
                    let company = user % 12;
                    record["groupId"] = format!("acct-{company}").into();
                    record["traits"] = json!({
                        "name": format!("Company {company}"), "employees": dice.below(900),
                        "phone": "+33 1 23", "industry": "Media",
                        "address": { "street": "6th St", "city": "Paris", "country": "FR" },
                    });
                }
            }
            record
        })
        .collect()
}

/// Records as lines.
pub(crate) fn lines(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

/// The load from a folder next to the project, if there is one.
pub(crate) fn beside_the_project() -> Option<Vec<Value>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/mix-1000.ndjson");
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}
