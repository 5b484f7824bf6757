//! Records waiting behind a server that is not there.

use std::io::Write;
use std::time::Duration;

use usercom_sink::emulator::Faults;

use super::{Rig, Running};

impl Running {
    /// A figure in kilobytes from the system's account of the process: `VmHWM` is the most resident
    /// memory it ever had.
    fn kilobytes(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).expect("the system tells");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn write_records(rig: &Rig, count: usize) {
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

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Feeds records while the server is dead; returns what the buffer holds at last, what the sources
/// yielded, and the peak of resident memory in kilobytes.
async fn wait_behind(count: usize, buffer: &str, enough: f64, within: Duration) -> (f64, f64, u64) {
    let sink = format!("preset = \"segment\"\n[sinks.crm.buffer]\ntype = \"{buffer}\"\n");
    let rig = Rig::new(Vec::new(), Faults::default(), &sink).await;
    write_records(&rig, count);
    rig.chaos.set_dead(true);
    let port = free_port();
    let config = std::fs::read_to_string(&rig.config).unwrap();
    let api = format!("[api]\nlisten = \"127.0.0.1:{port}\"\n[sources");
    std::fs::write(&rig.config, config.replacen("[sources", &api, 1)).unwrap();
    let mut running = rig.start(&[]);
    let page = format!("http://127.0.0.1:{port}/metrics");
    let end = tokio::time::Instant::now() + within;
    let (mut held, mut before, mut still) = (0.0, -1.0, 0);
    while held < enough && still < 10 {
        assert!(tokio::time::Instant::now() < end, "{held} in time");
        assert!(!running.has_ended(), "{}", rig.stderr());
        tokio::time::sleep(Duration::from_millis(300)).await;
        held = figure(&page, "buffer_size_events").await;
        still = if held == before && held > 0.0 { still + 1 } else { 0 };
        before = held;
    }
    let yielded = figure(&page, "component_sent_events_total{component_id=\"app\"").await;
    let peak = running.kilobytes("VmHWM");
    println!(
        "{buffer} buffer behind a dead server: {held} of {count} records held, {yielded} taken from \
         the source, peak of resident memory {:.1} MB",
        f64::from(u32::try_from(peak).unwrap()) / 1024.0
    );
    running.kill();
    rig.account.close().await;
    (held, yielded, peak)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_buffer_holds_its_source_back() {
    // Behind a dead server a memory buffer takes its fill and no more: the source waits.
    let (held, yielded, _) =
        wait_behind(40_000, "memory", f64::INFINITY, Duration::from_secs(60)).await;
    assert!(held <= 10_000.0, "{held} records in a buffer of 10,000");
    assert!(yielded < 25_000.0, "{yielded} records taken from the source");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn soak_memory() {
    // A million records wait on disk behind a dead server in less than 150 MB of memory.
    let count = 1_000_000;
    let (held, _, peak) = wait_behind(count, "disk", 1_000_000.0, Duration::from_secs(900)).await;
    assert!(held >= 1_000_000.0, "{held}");
    assert!(peak < 150 * 1024, "{peak} kB");
}
