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
    let mut least = None;
    for users in steps {
        // A server of their own: what it holds is not in question, but a port is cheap.
        let server = Server::start(Kind::Blackhole, false);
        let input = bench.input_of("growth.ndjson", &["identify"], *users);
        let sink = "preset = \"segment\"\nrequest.concurrency = 16";
        let pipeline = bench.pipeline(&input.path, &server.base, sink);
        let usage = run(&mut crate::sink(&pipeline));
        let told: serde_json::Value = serde_json::from_str(&usage.output).expect("a summary");
        let requests = told["sinks"]["crm"]["requests"].as_f64().expect("a number");
        let (at, base) = *least.get_or_insert((*users, usage.peak_mib));
        let kept = (*users).min(CACHED).saturating_sub(at);
        let per_user = match kept {
            0 => String::new(),
            kept => {
                let bytes = (usage.peak_mib - base) * 1024.0 * 1024.0 / kept as f64;
                format!(", {} bytes a user kept", count(bytes))
            }
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
