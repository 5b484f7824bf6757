//! A pipeline with the records of a small shop: for the pictures of the documentation, and for the
//! cost of the page.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use usercom_sink::emulator::Faults;

use super::service::{Service, parsed};
use crate::support::{EmulatorAccount, TestDir};

const MAPPING: &str = r#"
buffer.type = "disk"

[[sinks.crm.mapping]]
name = "signup"
when = { ".kind" = "signup" }
call = "identify"
fields.user_id = { path = ".id", required = true }
fields."traits.email" = ".email"
fields."traits.plan" = ".plan"

[[sinks.crm.mapping]]
name = "order"
when = { ".kind" = "order" }
call = "track"
fields.user_id = { path = ".id", required = true }
fields.event = { value = "Order placed" }
fields."properties.total" = ".total"
"#;

/// A service with a file that grows.
pub(super) struct Scene {
    pub(super) account: EmulatorAccount,
    pub(super) service: Service,
    records: PathBuf,
    written: u32,
    _place: TestDir,
}

impl Scene {
    pub(super) async fn start(place: TestDir, api: &str) -> Self {
        let account = EmulatorAccount::open(Faults::default()).await;
        let faults = json!({ "latency_ms": 30, "jitter_ms": 80, "rate_limit": 60 });
        account.set_faults(&faults).await;
        let records = place.write("records.ndjson", "");
        let service = Service::start(&place, &account.endpoint(), MAPPING, api).await;
        Self { account, service, records, written: 0, _place: place }
    }

    /// Appends records: most are delivered, some are not.
    pub(super) fn append(&mut self, count: u32) {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().append(true).open(&self.records).unwrap();
        for _ in 0..count {
            self.written += 1;
            writeln!(file, "{}", self.record()).unwrap();
        }
    }

    fn record(&self) -> Value {
        let n = self.written;
        let name = ["ann", "ben", "cleo", "dan", "eva", "fred", "hana"][n as usize % 7];
        let email = format!("{name}{n}@example.com");
        match n % 100 {
            33 => json!({ "kind": "signup", "email": email, "plan": "pro" }),
            66 | 67 => json!({ "kind": "sign-up", "id": format!("u{n}"), "email": email }),
            m if m % 3 == 0 => {
                json!({ "kind": "signup", "id": format!("u{n}"), "email": email, "plan": "free" })
            }
            m => json!({ "kind": "order", "id": format!("u{}", n / 3 * 3), "total": m * 3 }),
        }
    }

    /// Lets time pass, with some records a second.
    pub(super) async fn pass(&mut self, secs: u32, records_per_sec: u32) {
        for _ in 0..secs {
            self.append(records_per_sec);
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// The id of the newest dead letter.
    pub(super) async fn dead_letter(&self) -> Value {
        let any = |text: &str| parsed(text)["matching"].as_u64() > Some(0);
        let listed = self.service.until("/api/v1/dead-letters", |_, text| any(text)).await;
        parsed(&listed)["dead_letters"][0]["id"].clone()
    }
}
