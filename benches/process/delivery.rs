//! What delivering costs next to merely posting: the sink into the emulator and into a bare server,
//! in turns with a reqwest loop that posts the same requests over as many connections.
//!
//! The sink's time counts from its start to its end: with reading, mapping, order, deduplication
//! and settling. The loop's time counts from its first request to its last answer.

use std::path::Path;
use std::process::Command;

use crate::Size;
use crate::child::run;
use crate::input::{Bench, Input, Users};
use crate::poster::Posted;
use crate::server::{Kind, Server};
use crate::table::{Table, count, median};

/// Connections of both.
pub(crate) const CONNECTIONS: usize = 16;

/// The ways the sink is run.
const WAYS: [(&str, &str); 3] = [
    ("memory buffer", "request.concurrency = 16"),
    ("disk buffer", "request.concurrency = 16\nbuffer.type = \"disk\""),
    ("memory buffer, adaptive concurrency", ""),
];

/// What one run took.
#[derive(Debug, Clone, Copy, Default)]
struct Took {
    requests: f64,
    seconds: f64,
    cpu: f64,
    peak_mib: f64,
}

pub(crate) fn measure(bench: &Bench, size: Size, table: &mut Table) {
    let (lines, rounds) = match size {
        Size::Usual => (20_000, 5),
        Size::Full => (50_000, 9),
    };
    let input = bench.input("delivery.ndjson", lines, Users::ByTheMix);
    for kind in [Kind::Emulator, Kind::Blackhole] {
        against(kind, bench, &input, rounds, table);
    }
}

fn against(kind: Kind, bench: &Bench, input: &Input, rounds: usize, table: &mut Table) {
    let sent = bench.path("sent.json");
    let server = capture(kind, bench, input, &sent);
    let mut ways = WAYS.map(|_| Vec::new());
    let mut loops = Vec::new();
    for _ in 0..rounds {
        for (way, (_, config)) in ways.iter_mut().zip(WAYS) {
            way.push(deliver(bench, input, &server, config));
        }
        loops.push(post(&server, &sent));
    }
    let posted = middle(&loops);
    table.row(
        format!("reqwest loop into the {}", kind.name()),
        format!("{} requests/s", count(posted.requests / posted.seconds)),
        "",
        format!("{} requests, {} µs of processor each", count(posted.requests), micros(posted)),
    );
    for (way, (name, _)) in ways.iter().zip(WAYS) {
        let took = middle(way);
        let pace = (took.requests / took.seconds) / (posted.requests / posted.seconds);
        table.row(
            format!("sink into the {}, {name}", kind.name()),
            format!("{} requests/s", count(took.requests / took.seconds)),
            format!("{pace:.2}"),
            format!(
                "{} records/s, {} requests, {} µs of processor each, {:.0} MiB at most",
                count(input.lines as f64 / took.seconds),
                count(took.requests),
                micros(took),
                took.peak_mib
            ),
        );
    }
}

/// Writes down the requests of a run into an account that has its users and attributes already, and
/// gives back the server with that account: page views name users by keys of its own.
fn capture(kind: Kind, bench: &Bench, input: &Input, file: &Path) -> Server {
    let server = Server::start(kind, true);
    deliver(bench, input, &server, WAYS[0].1);
    let before = server.requests().len();
    deliver(bench, input, &server, WAYS[0].1);
    let mut all = server.requests();
    all.drain(..before);
    all.retain(|sent| !sent.is_catalogue());
    let text = serde_json::to_vec(&all).expect("requests are plain");
    std::fs::write(file, text).expect("the temporary directory can be written");
    if kind == Kind::Emulator {
        return server;
    }
    // This one keeps no account, so another that remembers nothing will do.
    let server = Server::start(kind, false);
    deliver(bench, input, &server, WAYS[0].1);
    server
}

fn deliver(bench: &Bench, input: &Input, server: &Server, config: &str) -> Took {
    let sink = format!("preset = \"segment\"\n{config}");
    let pipeline = bench.pipeline(&input.path, &server.base, &sink);
    let usage = run(&mut crate::sink(&pipeline));
    let told: serde_json::Value = serde_json::from_str(&usage.output).expect("a summary");
    let told = &told["sinks"]["crm"];
    assert_eq!(told["delivered"], input.lines, "every record is delivered: {told}");
    Took {
        requests: told["requests"].as_f64().expect("a number of requests"),
        seconds: usage.seconds,
        cpu: usage.cpu,
        peak_mib: usage.peak_mib,
    }
}

fn post(server: &Server, sent: &Path) -> Took {
    let mut command = Command::new(crate::own_path());
    command.args(["post", &server.base, &CONNECTIONS.to_string()]).arg(sent);
    let usage = run(&mut command);
    let posted: Posted = serde_json::from_str(&usage.output).expect("the loop's report");
    assert_eq!(posted.failed, 0, "the same requests are taken again");
    let requests = posted.requests as f64;
    Took { requests, seconds: posted.seconds, cpu: posted.cpu, peak_mib: usage.peak_mib }
}

/// The run in the middle, each figure for itself.
fn middle(runs: &[Took]) -> Took {
    let of = |figure: fn(&Took) -> f64| median(runs.iter().map(figure).collect());
    Took {
        requests: of(|t| t.requests),
        seconds: of(|t| t.seconds),
        cpu: of(|t| t.cpu),
        peak_mib: of(|t| t.peak_mib),
    }
}

fn micros(took: Took) -> String {
    format!("{:.0}", took.cpu / took.requests * 1e6)
}
