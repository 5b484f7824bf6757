//! Memory stays bounded whatever waits.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::TcpListener;
use std::time::Duration;

use crate::support::Place;
use crate::support::load::Load;
use crate::support::program::Program;

const MOST: u64 = 150 << 20;

/// The value of a metric, by how its line begins.
async fn metric(api: &str, name: &str) -> Option<u64> {
    let text = reqwest::get(format!("http://{api}/metrics")).await.ok()?.text().await.ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Starts a pipeline whose server is dead.
fn behind_a_dead_server(place: &Place, records: usize, buffer: &str) -> (Program, String) {
    let mut lines = BufWriter::new(File::create(place.path("records.ndjson")).unwrap());
    let load = Load { records, users: 10_000 };
    for n in 0..records {
        writeln!(lines, "{}", load.record(n)).unwrap();
    }
    lines.into_inner().unwrap().sync_all().unwrap();
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (dead, api) = (free(), free());
    let sink = format!(
        "preset = \"segment\"\n[sinks.crm.buffer]\ntype = \"{buffer}\"\n[api]\nlisten = \"{api}\"\n"
    );
    let config = place.pipeline(&format!("http://{dead}/api/public/"), &sink);
    let program = Program::start(&["run", "-c", config.to_str().unwrap()], &place.path("log"));
    (program, api.to_string())
}

/// Waits until the metric is `wanted`; the most memory used on the way.
async fn wait_for(program: &mut Program, api: &str, name: &str, wanted: u64) -> u64 {
    for _ in 0..6_000 {
        assert!(program.runs(), "{}", program.told());
        if metric(api, name).await == Some(wanted) {
            return program.peak_memory();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{name} never became {wanted}: {}", program.told());
}

async fn disk(records: usize) {
    let place = Place::new();
    let (mut program, api) = behind_a_dead_server(&place, records, "disk");
    let wanted = u64::try_from(records).unwrap();
    let peak = wait_for(&mut program, &api, "buffer_size_events", wanted).await;
    println!("{records} records wait on disk: at most {} MB resident", peak >> 20);
    assert!(peak < MOST, "{peak} bytes");
}

async fn memory(records: usize) {
    let place = Place::new();
    let (mut program, api) = behind_a_dead_server(&place, records, "memory");
    wait_for(&mut program, &api, "buffer_size_events", 10_000).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let read = metric(&api, "component_sent_events_total{component_id=\"app\"").await.unwrap();
    let peak = program.peak_memory();
    println!("{read} of {records} records read into memory: at most {} MB resident", peak >> 20);
    assert!(read < 20_000, "the source was not held back: it read {read} records");
    assert!(peak < MOST, "{peak} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_does_not_fill_memory() {
    // Behind a dead server a disk buffer takes what comes, and a memory buffer holds the source
    // back at its limit.
    disk(30_000).await;
    memory(30_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak of minutes, and half a gigabyte of disk"]
async fn soak_a_million_records_wait() {
    // A million records behind a dead server take less than 150 MB of memory.
    disk(1_000_000).await;
    memory(1_000_000).await;
}
