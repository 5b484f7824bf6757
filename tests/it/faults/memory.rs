//! Records waiting while there is no server.

use std::io::Write;
use std::time::Duration;

use usercom_sink::emulator::Faults;

use super::{Rig, Running, until};

impl Running {
    /// A figure in kilobytes from the system's account of the process: `VmHWM` is the most resident
    /// memory it ever had.
    fn kilobytes(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).expect("the system tells");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn write_records(rig: &Rig, count: u32) {
    let file = std::fs::File::create(rig.place.path().join("records.ndjson")).unwrap();
    let mut file = std::io::BufWriter::new(file);
    for n in 0..count {
        writeln!(
            file,
            "{{\"type\":\"track\",\"userId\":\"user-{}\",\"messageId\":\"m-{n}\",\"event\":\"Numbered\",\
             \"timestamp\":\"2026-08-20T08:00:00Z\",\"properties\":{{\"number\":\"{n}\",\
             \"note\":\"a text of the length that texts usually have\"}}}}",
            n % 5000
        )
        .unwrap();
    }
    file.flush().unwrap();
}

/// A status page's figure, summed over its labels.
async fn figure(url: &str, name: &str) -> f64 {
    let Ok(reply) = reqwest::get(url).await else { return 0.0 };
    let text = reply.text().await.unwrap();
    text.lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// What became of records while the server is down.
#[derive(Debug)]
struct Waiting {
    /// Records in the buffer at last.
    held: f64,
    /// Records the sources yielded.
    yielded: f64,
    /// The most resident memory, in kilobytes.
    peak: u64,
}

/// Feeds records to a server that dies after the first few, until all are taken from the source or
/// no more are.
async fn wait_behind(count: u32, buffer: &str, within: Duration) -> Waiting {
    let sink = format!("preset = \"segment\"\n[sinks.crm.buffer]\ntype = \"{buffer}\"\n");
    let faults = Faults { latency_ms: 20, ..Faults::default() };
    let rig = Rig::new(Vec::new(), faults, &sink).await;
    write_records(&rig, count);
    let port = rig.with_status_page();
    let mut running = rig.start(&[]);
    until("a few", Duration::from_secs(60), || rig.chaos.asked() > 20).await;
    rig.chaos.set_dead(true);
    let page = format!("http://127.0.0.1:{port}/metrics");
    let end = tokio::time::Instant::now() + within;
    let (mut yielded, mut still) = (0.0, 0);
    while yielded < f64::from(count) && still < 10 {
        assert!(tokio::time::Instant::now() < end, "only {yielded} in time");
        assert!(!running.has_ended(), "{}", rig.stderr());
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = figure(&page, "component_sent_events_total{component_id=\"app\"").await;
        still = if now > yielded || now == 0.0 { 0 } else { still + 1 };
        yielded = now;
    }
    // What was taken last is still on its way into the buffer.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = figure(&page, "buffer_size_events").await;
    let waiting = Waiting { held, yielded, peak: running.kilobytes("VmHWM") };
    println!("{buffer} buffer behind a dead server, {count} records: {waiting:?}");
    running.kill();
    rig.account.close().await;
    waiting
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_memory_buffer_slows_its_source() {
    // Behind a dead server a memory buffer takes its fill and no more: the source waits.
    let waiting = wait_behind(40_000, "memory", Duration::from_secs(60)).await;
    assert!(waiting.held <= 10_000.0, "more than fit: {waiting:?}");
    assert!(waiting.yielded < 25_000.0, "the source was not held back: {waiting:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn soak_memory() {
    // A million records wait on disk while the server is down in less than 150 MB of memory.
    let waiting = wait_behind(1_000_000, "disk", Duration::from_secs(900)).await;
    assert!(waiting.held >= 990_000.0, "{waiting:?}");
    assert!(waiting.peak < 150 * 1024, "{waiting:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_dropped_by_full_buffer_are_counted() {
    // With `drop_newest` every record is either held or counted as dropped on purpose.
    let count = 3_000;
    let sink = r#"preset = "segment"
[sinks.crm.buffer]
type = "disk"
max_size = 20000
when_full = "drop_newest"
"#;
    let rig = Rig::new(Vec::new(), Faults::default(), sink).await;
    write_records(&rig, count);
    let port = rig.with_status_page();
    rig.chaos.set_dead(true);
    let mut running = rig.start(&[]);
    let page = format!("http://127.0.0.1:{port}/metrics");
    let dropped = "component_discarded_events_total{component_id=\"crm\",component_kind=\"sink\",\
                   component_type=\"usercom\",intentional=\"true\",reason=\"buffer_full\"}";
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let lost = figure(&page, dropped).await;
        let held = figure(&page, "buffer_size_events").await;
        if lost > 0.0 && held > 0.0 && lost + held >= f64::from(count) {
            break;
        }
        assert!(!running.has_ended(), "{}", rig.stderr());
        assert!(tokio::time::Instant::now() < end, "{held} held and {lost} dropped of {count}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    running.kill();
    rig.account.close().await;
}
