//! The whole process: the program as it is shipped, next to programs that do less of the same work.
//!
//!   cargo bench --bench process                    # about two minutes
//!   cargo bench --bench process -- --full          # a million records, a million users
//!   cargo bench --bench process -- delivery start  # these chapters only
//!   cargo bench --bench process -- --sink PATH     # another build of the program
//!
//! Contestants take turns; each is a process of its own, started by this one, and its processor
//! time is what Linux says of it. Only ratios carry over to another machine. Everything goes over
//! loopback and into a temporary directory that is removed at the end.
//!
//! The chapters: `unmatched`, `delivery`, `start`, `growth`.

// A benchmark says its result.
#![allow(clippy::print_stdout)]

mod blackhole;
mod child;
mod delivery;
mod growth;
mod input;
#[path = "../support/mix.rs"]
mod mix;
mod poster;
mod server;
mod start;
mod table;
mod unmatched;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use input::{Bench, Pipeline};
use table::Table;

/// The program's own, so that the loop it is set next to has it too.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The program under measurement; if nothing else is said, the one built with the bench and like
/// it.
static SINK: OnceLock<PathBuf> = OnceLock::new();

const CHAPTERS: [&str; 4] = ["unmatched", "delivery", "start", "growth"];

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// A few minutes.
    Usual,
    /// With a million records and a million users.
    Full,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve", rest @ ..] => serve(rest == ["--log"]),
        ["post", base, connections, file] => {
            let connections = connections.parse().expect("a number of connections");
            let posted = block_on(poster::post(base, Path::new(file), connections));
            println!("{}", serde_json::to_string(&posted).expect("numbers are plain"));
        }
        args => bench(args),
    }
}

fn serve(log: bool) {
    block_on(async {
        let (listener, base) = blackhole::listen().await;
        println!("{base}");
        blackhole::serve(listener, blackhole::Seen::new(log)).await;
    });
}

fn bench(args: &[&str]) {
    let (sink, args) = match args {
        ["--sink", path, rest @ ..] => (*path, rest),
        _ => (env!("CARGO_BIN_EXE_usercom-sink"), args),
    };
    SINK.set(sink.into()).expect("set once");
    let unknown = args.iter().find(|arg| **arg != "--full" && !CHAPTERS.contains(arg));
    if let Some(unknown) = unknown {
        say(&format!(
            "unknown: {unknown}; there are --sink PATH (first), --full, {}",
            CHAPTERS.join(", ")
        ));
        std::process::exit(2);
    }
    let size = if args.contains(&"--full") { Size::Full } else { Size::Usual };
    let all = !args.iter().any(|arg| CHAPTERS.contains(arg));
    let bench = Bench::new();
    let mut table = Table::default();
    for chapter in CHAPTERS {
        if !all && !args.contains(&chapter) {
            continue;
        }
        say(chapter);
        match chapter {
            "unmatched" => unmatched::measure(&bench, size, &mut table),
            "delivery" => delivery::measure(&bench, size, &mut table),
            "start" => start::measure(&bench, &mut table),
            _ => growth::measure(&bench, size, &mut table),
        }
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    println!("\nRecords made from {}; {processors} processors.\n\n{table}", bench.source);
}

/// `run --once` of a pipeline.
fn sink(pipeline: &Pipeline) -> Command {
    let mut command = follow(pipeline);
    command.args(["--once", "--format", "json"]);
    command
}

/// `run` of a pipeline, until it is stopped.
fn follow(pipeline: &Pipeline) -> Command {
    let mut command = Command::new(sink_path());
    command.args(["run", "-c"]).arg(&pipeline.path).env("RUST_LOG", "error");
    command
}

fn sink_path() -> &'static Path {
    SINK.get().expect("it is set before anything is measured")
}

/// This very program, which is also the server and the loop it measures with.
fn own_path() -> PathBuf {
    std::env::current_exe().expect("a running program has a path")
}

/// Runs to its end on a runtime like the program's.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(work)
}

/// Reports the progress to the waiting task.
#[expect(clippy::print_stderr, reason = "progress is for people")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> Instant {
    Instant::now()
}
