//! Records that no rule wants, read by `run --once`: what reading, decoding and matching cost, next
//! to
//! `wc -l`, which only counts lines, and `jq`, which parses and drops them.

use std::process::{Command, Stdio};

use crate::Size;
use crate::child::{Usage, run};
use crate::input::{Bench, Users};
use crate::table::{Table, count};

/// A rule that looks into every record and wants none.
const RULE: &str = r#"
[[sinks.crm.mapping]]
call = "track"
when = { ".type" = "order", ".order.status" = { in = ["paid", "sent"] } }
[sinks.crm.mapping.fields]
user_id = ".user.id"
event = ".order.status"
"properties.*" = ".order"
"#;

pub(crate) fn measure(bench: &Bench, size: Size, table: &mut Table) {
    let (lines, rounds) = match size {
        Size::Usual => (200_000, 3),
        Size::Full => (1_000_000, 3),
    };
    let input = bench.input("unmatched.ndjson", lines, Users::ByTheMix);
    let server = crate::server::Server::start(crate::server::Kind::Blackhole, false);
    let (wc, jq) = (installed("wc"), installed("jq"));
    let (mut ours, mut theirs) = (Best::default(), [Best::default(), Best::default()]);
    for _ in 0..rounds {
        let pipeline = bench.pipeline(&input.path, &server.base, RULE);
        let mut command = crate::sink(&pipeline);
        let usage = run(&mut command);
        let told: serde_json::Value = serde_json::from_str(&usage.output).expect("a summary");
        assert_eq!(told["sinks"]["crm"]["unmatched"], lines, "all records are read, none wanted");
        ours.take(usage);
        if wc {
            theirs[0].take(run(Command::new("wc").arg("-l").arg(&input.path)));
        }
        if jq {
            theirs[1].take(run(Command::new("jq").args(["-c", "select(false)"]).arg(&input.path)));
        }
    }
    let took = ours.0.expect("it ran");
    let speed = lines as f64 / took.seconds;
    let title = format!("{} records no rule wants, {} MB", count(lines as f64), input.bytes >> 20);
    table.row(
        format!("{title}: `run --once`"),
        format!("{} lines/s", count(speed)),
        "",
        format!("{:.2} s, {:.2} s of processor, {:.0} MiB", took.seconds, took.cpu, took.peak_mib),
    );
    for (name, best) in ["`wc -l`", "`jq -c 'select(false)'`"].iter().zip(theirs) {
        let Some(other) = best.0 else { continue };
        table.row(
            format!("{name} of the same file"),
            format!("{} lines/s", count(lines as f64 / other.seconds)),
            format!("{:.2}", other.seconds / took.seconds),
            format!("{:.2} s, {:.2} s of processor", other.seconds, other.cpu),
        );
    }
    drop(std::fs::remove_file(&input.path));
}

/// The shortest of several runs.
#[derive(Default)]
struct Best(Option<Usage>);

impl Best {
    fn take(&mut self, usage: Usage) {
        if self.0.as_ref().is_none_or(|best| usage.seconds < best.seconds) {
            self.0 = Some(usage);
        }
    }
}

fn installed(program: &str) -> bool {
    let asked =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = asked.is_ok_and(|status| status.success());
    if !there {
        crate::say(&format!("!! `{program}` IS NOT INSTALLED: nothing is compared with it"));
    }
    there
}
