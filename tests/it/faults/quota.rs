//! A server that takes so many requests a second and answers the others with 429.

use std::time::Duration;

use usercom_sink::emulator::Faults;

use super::Rig;
use crate::support::tally::records;

/// Requests a second the server takes.
const LIMIT: u32 = 50;

/// What the server answered within a span.
#[derive(Debug)]
struct Answers {
    taken: u64,
    refused: u64,
    seconds: f64,
}

impl Answers {
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    fn rate(&self) -> f64 {
        self.taken as f64 / self.seconds
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    fn refused_share(&self) -> f64 {
        self.refused as f64 / (self.refused + self.taken) as f64
    }
}

async fn answers(rig: &Rig) -> (u64, u64) {
    let stats = rig.account.admin("stats").await;
    let statuses = stats["statuses"].as_object().unwrap();
    let refused = statuses.get("429").and_then(serde_json::Value::as_u64).unwrap_or_default();
    (stats["total"].as_u64().unwrap() - refused, refused)
}

/// Delivers for some time and counts, from the start on.
async fn deliver(request: &str, span: Duration) -> (Rig, Answers) {
    let sink = format!(
        "preset = \"segment\"\n[sinks.crm.request]\n{request}\n[sinks.crm.delivery]\nfold = false\n"
    );
    let count = usize::try_from(span.as_secs()).unwrap() * LIMIT as usize * 2;
    let faults = Faults { rate_limit: Some(LIMIT), latency_ms: 20, ..Faults::default() };
    let rig = Rig::new(records(count, 200), faults, &sink).await;
    let mut running = rig.start(&[]);
    // The server's bucket holds a second's worth at the start: that is no steady rate.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = answers(&rig).await;
    let started = tokio::time::Instant::now();
    tokio::time::sleep(span).await;
    let seconds = started.elapsed().as_secs_f64();
    let after = answers(&rig).await;
    assert!(!running.has_ended(), "{}", rig.stderr());
    running.kill();
    let answers = Answers { taken: after.0 - before.0, refused: after.1 - before.1, seconds };
    println!(
        "quota of {LIMIT}/s, {request}: {:.1}/s taken over {seconds:.0} s, {:.2} % of attempts refused \
         (since the start {} refused)",
        answers.rate(),
        answers.refused_share() * 100.0,
        after.1,
    );
    (rig, answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_rate_limit_prevents_429() {
    // With `rate_limit_num` at the server's limit there is not one 429, however slow the machine.
    let request = format!("rate_limit_num = {LIMIT}");
    let (rig, _) = deliver(&request, Duration::from_secs(4)).await;
    assert_eq!(answers(&rig).await.1, 0);
    rig.account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute, and needs a quiet machine"]
async fn soak_quota_adaptive() {
    // Without a limit of its own it finds the server's: at least 95 % of it, at most 5 % refused.
    let (rig, answers) = deliver("concurrency = \"adaptive\"", Duration::from_secs(60)).await;
    assert!(answers.rate() >= f64::from(LIMIT) * 0.95, "{answers:?}");
    assert!(answers.refused_share() <= 0.05, "{answers:?}");
    rig.account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute, and needs a quiet machine"]
async fn soak_quota_with_client_limit() {
    // With one it never meets the server's, and still uses it up but for what late timers cost.
    let request = format!("rate_limit_num = {LIMIT}");
    let (rig, answers) = deliver(&request, Duration::from_secs(60)).await;
    assert_eq!(answers.refused, 0, "{answers:?}");
    assert!(answers.rate() >= f64::from(LIMIT) * 0.9, "{answers:?}");
    rig.account.close().await;
}
