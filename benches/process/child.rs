//! A process under measurement: how long it lived, what it used of the processors, and how much
//! memory it held at most.
//!
//! Everything is read from `/proc`, so any program can be measured alike. Invariant: no process
//! survives what started it here, unless that is killed.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::clock;

/// How often a running process is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Ticks a second in which Linux tells processor time to programs; the same on every machine it
/// runs on today.
const TICKS: f64 = 100.0;

/// What a process took, from its start to its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    /// From start to end, in seconds.
    pub(crate) seconds: f64,
    /// Processor time of all its threads, in the kernel too, in seconds.
    pub(crate) cpu: f64,
    /// The most memory it held at once, in MiB.
    pub(crate) peak_mib: f64,
    /// What it wrote to its standard output.
    pub(crate) output: String,
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started or fails: a benchmark of something that failed says nothing.
pub(crate) fn run(command: &mut Command) -> Usage {
    let started = clock();
    let running = Running::start(command);
    let mut peak_kib = 0;
    loop {
        peak_kib = running.memory().map_or(peak_kib, |memory| peak_kib.max(memory.peak_kib));
        if running.ended() {
            break;
        }
        sleep(LOOK);
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = running.cpu();
    let (status, output) = running.reap();
    assert!(status.success(), "{command:?} ended with {status}");
    Usage { seconds, cpu, peak_mib: mib(peak_kib), output }
}

/// Processor time of this process so far, in seconds.
pub(crate) fn own_cpu() -> f64 {
    cpu(&stat("self"))
}

/// The fields after the name, which may hold anything: the state is the first.
fn stat(process: &str) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().map(str::to_owned).collect()
}

fn cpu(stat: &[String]) -> f64 {
    let ticks = |n: usize| stat.get(n).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).unwrap_or_default() + ticks(12).unwrap_or_default()) / TICKS
}

/// Memory of a running process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident now, in KiB.
    pub(crate) resident_kib: u64,
    /// Resident at most so far, in KiB.
    pub(crate) peak_kib: u64,
}

/// KiB in MiB.
pub(crate) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// A process that is running; killed when dropped.
pub(crate) struct Running {
    child: Child,
    /// When it was started.
    pub(crate) started: Instant,
}

impl Running {
    /// Starts a program with its output piped.
    pub(crate) fn start(command: &mut Command) -> Self {
        let started = clock();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        Self { child, started }
    }

    /// The first line it prints.
    pub(crate) fn first_line(&mut self) -> String {
        let out = self.child.stdout.as_mut().expect("the output is piped and read once");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("a pipe can be read");
        line.trim().to_owned()
    }

    /// What it holds now; `None` once it has ended.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let status = self.proc("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Memory { resident_kib: field("VmRSS:")?, peak_kib: field("VmHWM:")? })
    }

    /// Processor time so far, in seconds. Still told of a process that has ended and was not
    /// waited for.
    pub(crate) fn cpu(&self) -> f64 {
        cpu(&self.stat())
    }

    /// Whether it has ended.
    pub(crate) fn ended(&self) -> bool {
        matches!(self.stat().first().map(String::as_str), None | Some("Z"))
    }

    /// How it ended, and the rest of its output.
    fn reap(mut self) -> (ExitStatus, String) {
        let mut output = String::new();
        let mut out = self.child.stdout.take().expect("the output is piped and taken once");
        out.read_to_string(&mut output).expect("a pipe can be read");
        (self.child.wait().expect("it was started here"), output)
    }

    fn stat(&self) -> Vec<String> {
        stat(&self.child.id().to_string())
    }

    fn proc(&self, file: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that was waited for is gone already, and its number is not used.
        if let Ok(None) = self.child.try_wait() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
