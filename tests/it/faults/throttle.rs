//! The built binary with throttles as real services have them: how much of each it uses, and how
//! much is refused.

use std::time::Duration;

use usercom_sink::emulator::Faults;

use super::Rig;
use crate::support::tally::records;
use crate::support::throttle::{Decision, Hint, Limit, Throttle};

/// Users whose requests wait at any time.
const USERS: usize = 40;
/// Requests a second of the client that is told its limit.
const TOLD_RATE: u32 = 40;
/// How long the server takes for a request, in milliseconds.
const LATENCY_MS: u64 = 50;

/// One row of the table.
struct Row {
    name: &'static str,
    throttle: Throttle,
    /// What is allowed, in requests a second.
    ideal: f64,
    /// From which second on to which it is measured: whole windows.
    from: f64,
    to: f64,
    /// The least share of the ideal and the most that may be refused, in percent.
    least: f64,
    most: f64,
    processes: usize,
    latency_ms: u64,
}

impl Row {
    fn new(name: &'static str, throttle: Throttle, ideal: f64, from: f64, to: f64) -> Self {
        Self {
            name,
            throttle,
            ideal,
            from,
            to,
            least: 95.0,
            most: 5.0,
            processes: 1,
            latency_ms: LATENCY_MS,
        }
    }

    /// Other limits than 95 % and 5 %.
    fn within(self, least: f64, most: f64) -> Self {
        Self { least, most, ..self }
    }

    fn latency(self, latency_ms: u64) -> Self {
        Self { latency_ms, ..self }
    }

    fn processes(self, processes: usize) -> Self {
        Self { processes, ..self }
    }
}

/// What a throttle decided within some seconds.
#[derive(Debug, Default)]
struct Decided {
    accepted: u32,
    refused: u32,
}

impl Decided {
    fn between(log: &[Decision], from: f64, to: f64) -> Self {
        let mut decided = Self::default();
        for decision in log.iter().filter(|decision| (from..to).contains(&decision.at)) {
            match decision.is_accepted {
                true => decided.accepted += 1,
                false => decided.refused += 1,
            }
        }
        decided
    }

    fn refused_percent(&self) -> f64 {
        100.0 * f64::from(self.refused) / f64::from((self.accepted + self.refused).max(1))
    }
}

/// A pipeline with work for as many requests and half as many more.
async fn rig(requests: f64, latency_ms: u64) -> Rig {
    let sink = "preset = \"segment\"\n[sinks.crm.delivery]\nfold = false\n";
    rig_of(requests, latency_ms, sink).await
}

/// The same with a sink's table of its own.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
async fn rig_of(requests: f64, latency_ms: u64, sink: &str) -> Rig {
    let faults = Faults { latency_ms, ..Faults::default() };
    Rig::new(records((requests * 1.5) as usize + 500, USERS), faults, sink).await
}

/// Makes a pipeline send through the proxy of another.
fn share_proxy(rig: &Rig, with: &Rig) {
    let config = std::fs::read_to_string(&rig.config).unwrap();
    let shared = config.replace(&rig.chaos.endpoint(), &with.chaos.endpoint());
    assert_ne!(config, shared);
    std::fs::write(&rig.config, shared).unwrap();
}

/// Runs the binary with the row's throttle. Returns which share of the ideal was used while it was
/// measured, and which share of the requests was refused, in percent.
async fn measure(row: &Row) -> (f64, f64) {
    let first = rig(row.ideal * row.to, row.latency_ms).await;
    first.chaos.set_throttle(row.throttle.clone());
    let mut rigs = vec![first];
    for _ in 1..row.processes {
        let other = rig(row.ideal * row.to, row.latency_ms).await;
        share_proxy(&other, &rigs[0]);
        rigs.push(other);
    }
    let mut running: Vec<_> = rigs.iter().map(|rig| rig.start(&[])).collect();
    while rigs[0].chaos.throttled_for() < row.to {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (running, rig) in running.iter_mut().zip(&rigs) {
        assert!(!running.has_ended(), "{}: {}", row.name, rig.stderr());
        running.kill();
    }
    let decided = Decided::between(&rigs[0].chaos.decisions(), row.from, row.to);
    let ideal = rigs[0].chaos.allowed_at_a_time().unwrap_or(row.ideal);
    for rig in rigs {
        rig.account.close().await;
    }
    let used = 100.0 * f64::from(decided.accepted) / (row.to - row.from) / ideal;
    (used, decided.refused_percent())
}

/// Measures all rows at the same time, prints the table, and returns the rows that do not hold.
///
/// A client that is told the limit is measured beside them: what it does not use of the same rate
/// is the machine's share, and no row can use more.
async fn failing(rows: Vec<Row>) -> Vec<(Row, String)> {
    let measured = futures::future::join_all(rows.iter().map(measure));
    let (measured, told) = futures::join!(measured, told_client(rows.iter().map(|row| row.to)));
    println!("{:<50} {:>8} {:>8}", "throttle", "of ideal", "refused");
    println!("{:<50} {:>6.1} %", "a client that is told its limit", 100.0 * told);
    let mut failing = Vec::new();
    for (row, (used, refused)) in rows.into_iter().zip(measured) {
        println!("{:<50} {used:>6.1} % {refused:>6.1} %", row.name);
        if used < row.least * told || refused > row.most {
            let text = format!("{}: {used:.1} % used, {refused:.1} % refused", row.name);
            failing.push((row, text));
        }
    }
    failing
}

/// Fails where a row does not hold, nor when it is measured again with the others that did not: the
/// machine may be busy with something else.
async fn check(rows: Vec<Row>) {
    let again = failing(rows).await.into_iter().map(|(row, _)| row).collect::<Vec<_>>();
    if again.is_empty() {
        return;
    }
    let failing: Vec<String> = failing(again).await.into_iter().map(|(_, text)| text).collect();
    assert!(failing.is_empty(), "{failing:#?}");
}

/// Which part of `TOLD_RATE` a client uses that knows it and is never refused; at most 1.
async fn told_client(lengths: impl Iterator<Item = f64>) -> f64 {
    let to = lengths.fold(0.0, f64::max);
    let from = to / 2.0;
    let sink = format!(
        "preset = \"segment\"\nrequest.rate_limit_num = {TOLD_RATE}\n[sinks.crm.delivery]\nfold = false\n"
    );
    let free = Limit::Sliding { num: usize::MAX, window: 1.0 };
    let rig = rig_of(f64::from(TOLD_RATE) * to, LATENCY_MS, &sink).await;
    rig.chaos.set_throttle(Throttle::new(free, Hint::None));
    let mut running = rig.start(&[]);
    while rig.chaos.throttled_for() < to {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.kill();
    let decided = Decided::between(&rig.chaos.decisions(), from, to);
    rig.account.close().await;
    (f64::from(decided.accepted) / (to - from) / f64::from(TOLD_RATE)).min(1.0)
}

fn sliding(num: usize, window: f64) -> Limit {
    Limit::Sliding { num, window }
}

fn fixed(num: u32, window: f64) -> Limit {
    Limit::Fixed { num, window }
}

fn bucket(rate: f64, burst: f64) -> Limit {
    Limit::Bucket { rate, burst }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttles_of_services_are_used_up_with_few_refusals() {
    // The built program uses 95 % of what each kind of throttle allows from the tenth second or
    // second window on, and 5 % of its requests are refused at most.
    use Hint::{Headers, None, RetryAfter};
    let new = |limit, hint| Throttle::new(limit, hint);
    let row = Row::new;
    check(vec![
        row("sliding 40/1, Retry-After", new(sliding(40, 1.0), RetryAfter), 40.0, 10.0, 24.0),
        row("fixed 150/5", new(fixed(150, 5.0), None), 30.0, 10.0, 25.0),
        row("fixed 150/5, X-RateLimit", new(fixed(150, 5.0), Headers), 30.0, 10.0, 25.0),
        row("bucket 20/s of 20", new(bucket(20.0, 20.0), None), 20.0, 10.0, 24.0),
        // What others do on the machine delays requests into a place that is free again.
        row("5 at a time", new(Limit::InFlight { num: 5 }, None), 50.0, 13.0, 25.0)
            .latency(100)
            .within(92.0, 6.0),
        row(
            "everything refused for 4 s, then 40/s",
            new(sliding(40, 1.0), RetryAfter).storm(5.0, 9.0),
            40.0,
            19.0,
            24.0,
        ),
        row("two processes, sliding 40/1", new(sliding(40, 1.0), None), 40.0, 14.0, 24.0)
            .processes(2),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes seven minutes, and needs an idle machine"]
async fn soak_throttles_of_services_are_used_up_with_few_refusals() {
    // The same with higher rates, windows of a minute, and quotas that halve and double.
    use Hint::{None, RetryAfter};
    let new = |limit, hint| Throttle::new(limit, hint);
    let row = Row::new;
    let rows = vec![
        row("sliding 50/1, Retry-After", new(sliding(50, 1.0), RetryAfter), 50.0, 10.0, 60.0),
        row("fixed 100/10, Retry-After", new(fixed(100, 10.0), RetryAfter), 10.0, 20.0, 120.0),
        row("fixed 100/10", new(fixed(100, 10.0), None), 10.0, 20.0, 120.0),
        row("sliding 100/60", new(sliding(100, 60.0), None), 100.0 / 60.0, 120.0, 240.0),
        row("fixed 600/60", new(fixed(600, 60.0), None), 10.0, 120.0, 240.0),
        row("bucket 50/s of 50", new(bucket(50.0, 50.0), None), 50.0, 10.0, 60.0),
        row("8 at a time", new(Limit::InFlight { num: 8 }, None), 80.0, 10.0, 60.0).latency(100),
        row(
            "everything refused for 10 s, then 60/s",
            new(sliding(60, 1.0), None).storm(20.0, 30.0),
            60.0,
            40.0,
            60.0,
        ),
        row(
            "one in ten by chance, sliding 60/1",
            new(sliding(60, 1.0), None).refusing_every(10),
            60.0,
            20.0,
            60.0,
        )
        .within(90.0, 21.0),
        row(
            "sliding 40/1, then 20/1",
            new(sliding(40, 1.0), None).then(40.0, sliding(20, 1.0)),
            20.0,
            50.0,
            80.0,
        ),
        row(
            "bucket 20/s of 20, then 40/s of 40",
            new(bucket(20.0, 20.0), None).then(40.0, bucket(40.0, 40.0)),
            40.0,
            50.0,
            80.0,
        ),
        row("two processes, fixed 600/10", new(fixed(600, 10.0), None), 60.0, 20.0, 120.0)
            .processes(2)
            .within(94.0, 5.0),
    ];
    // In three groups, so that a machine with two cores is not the limit.
    let mut rows = rows.into_iter();
    loop {
        let group: Vec<Row> = rows.by_ref().take(4).collect();
        if group.is_empty() {
            return;
        }
        check(group).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_process_goes_on_with_the_quota_it_learned() {
    // After a kill the next process sends at the learned pace from its first request on: at most
    // 5 % of its requests are refused, fewer than of the first, and most of the quota is used.
    const RATE: u32 = 20;
    let rig = rig(f64::from(RATE) * 40.0, LATENCY_MS).await;
    rig.chaos.set_throttle(Throttle::new(sliding(RATE as usize, 1.0), Hint::None));
    let mut lives = Vec::new();
    for _ in 0..2 {
        let mut running = rig.start(&[]);
        let begin = rig.chaos.asked();
        super::until("requests", Duration::from_secs(30), || rig.chaos.asked() > begin).await;
        let from = rig.chaos.throttled_for();
        if lives.is_empty() {
            // Until it met the limit.
            let refused = || Decided::between(&rig.chaos.decisions(), from, f64::MAX).refused;
            super::until("refusals", Duration::from_secs(30), || refused() > 5).await;
        }
        tokio::time::sleep(Duration::from_secs(7)).await;
        let to = rig.chaos.throttled_for();
        running.kill();
        lives.push((to - from, Decided::between(&rig.chaos.decisions(), from, to)));
    }
    for (seconds, decided) in &lives {
        println!("killed after {seconds:.1} s: {decided:?}, {:.1} %", decided.refused_percent());
    }
    let (seconds, decided) = &lives[1];
    assert!(decided.refused_percent() <= 5.0, "{lives:?}");
    assert!(decided.refused < lives[0].1.refused, "{lives:?}");
    assert!(f64::from(decided.accepted) >= 0.7 * f64::from(RATE) * seconds, "{lives:?}");
    rig.account.close().await;
}
