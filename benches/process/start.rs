//! A start: how long after the catalogue the first request comes, and what a sink holds that has
//! nothing to do.

use std::sync::mpsc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::blackhole::{self, Seen};
use crate::child::{Running, mib};
use crate::input::{Bench, Users};
use crate::table::{Table, median};

/// Starts that are measured.
const STARTS: usize = 15;

/// Records there are to deliver.
const RECORDS: usize = 100;

/// How long a sink has been idle when its memory is looked at.
const SETTLED: Duration = Duration::from_secs(3);

pub(crate) fn measure(bench: &Bench, table: &mut Table) {
    let input = bench.input("start.ndjson", RECORDS, Users::ByTheMix);
    let (mut after_catalogue, mut after_start) = (Vec::new(), Vec::new());
    let mut idle = 0;
    for n in 0..STARTS {
        let (seen, base) = server();
        let pipeline = bench.pipeline(&input.path, &base, "preset = \"segment\"");
        let sink = Running::start(&mut crate::follow(&pipeline));
        let (read, first) = first_request(&seen);
        after_catalogue.push(first.saturating_duration_since(read).as_secs_f64() * 1e3);
        after_start.push(first.saturating_duration_since(sink.started).as_secs_f64() * 1e3);
        if n == 0 {
            sleep(SETTLED);
            idle = sink.memory().expect("it waits for more").resident_kib;
        }
    }
    let worst = after_catalogue.iter().copied().fold(0.0, f64::max);
    table.row(
        "catalogue read to first request",
        format!("{:.1} ms", median(after_catalogue)),
        "",
        format!("{worst:.1} ms at most in {STARTS} starts"),
    );
    table.row("program started to first request", format!("{:.0} ms", median(after_start)), "", "");
    table.row(
        "an idle sink",
        format!("{:.1} MiB resident", mib(idle)),
        "",
        format!("following its file, {RECORDS} records delivered"),
    );
}

/// A blackhole in this process, so that its clock is ours. It ends with the bench.
fn server() -> (std::sync::Arc<Seen>, String) {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        crate::block_on(async move {
            let (listener, base) = blackhole::listen().await;
            let seen = Seen::new(false);
            drop(send.send((std::sync::Arc::clone(&seen), base)));
            blackhole::serve(listener, seen).await;
        });
    });
    receive.recv().expect("the server's thread sends before it serves")
}

fn first_request(seen: &Seen) -> (Instant, Instant) {
    let deadline = crate::clock() + Duration::from_secs(30);
    loop {
        if let (Some(read), Some(first)) = seen.first() {
            return (read, first);
        }
        assert!(crate::clock() < deadline, "no request came within 30 s");
        sleep(Duration::from_millis(1));
    }
}
