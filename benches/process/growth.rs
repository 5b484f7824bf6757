//! What grows with the number of distinct users: requests, memory, the store on disk. What is
//! remembered of users is bounded by `users.cache_size`, 100,000 where nothing else is said.

use crate::Size;
use crate::child::run;
use crate::input::Bench;
use crate::server::{Kind, Server};
use crate::table::{Table, count};

/// Users remembered by default.
const CACHED: usize = 100_000;

pub(crate) fn measure(bench: &Bench, size: Size, table: &mut Table) {
    let steps: &[usize] = match size {
        Size::Usual => &[1_000, 10_000, 100_000],
        Size::Full => &[1_000, 10_000, 100_000, 300_000, 1_000_000],
    };
    // The step before: how many of its users were remembered, and what it held.
    let mut before = None;
    for users in steps {
        // A server of their own: what it holds is not in question, but a port is cheap.
        let server = Server::start(Kind::Blackhole, false);
        let input = bench.input_of("growth.ndjson", &["identify"], *users);
        let sink = "preset = \"segment\"\nrequest.concurrency = 16";
        let pipeline = bench.pipeline(&input.path, &server.base, sink);
        let usage = run(&mut crate::sink(&pipeline));
        let told: serde_json::Value = serde_json::from_str(&usage.output).expect("a summary");
        let requests = told["sinks"]["crm"]["requests"].as_f64().expect("a number");
        let kept = (*users).min(CACHED);
        let per_user = match before.replace((kept, usage.peak_mib)) {
            // Below that, what is in flight still grows along.
            Some((then, held)) if kept > then && then >= 10_000 => {
                let bytes = (usage.peak_mib - held) * 1024.0 * 1024.0 / (kept - then) as f64;
                format!(", {} bytes for each user more that is kept", count(bytes))
            }
            _ => String::new(),
        };
        table.row(
            format!("{} users, an identify each", count(*users as f64)),
            format!("{:.3} requests a record", requests / *users as f64),
            "",
            format!(
                "{:.0} MiB at most{per_user}; {} bytes a user on disk; {} records/s",
                usage.peak_mib,
                count(pipeline.stored() as f64 / *users as f64),
                count(*users as f64 / usage.seconds)
            ),
        );
        drop(std::fs::remove_file(&input.path));
    }
}
