//! The two servers deliveries go to: the emulator and the blackhole, each a process of its own.
//!
//! Invariant: both are asked for what came to them in the same way.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::child::Running;
use crate::poster::Sent;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The local User.com, with its state in memory.
    Emulator,
    /// The one that answers at once and keeps nothing.
    Blackhole,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Emulator => "emulator",
            Self::Blackhole => "bare server",
        }
    }
}

/// A running server; stopped when dropped.
pub(crate) struct Server {
    /// Where its API is.
    pub(crate) base: String,
    running: Process,
}

/// What must live as long as the server is used.
#[expect(dead_code, reason = "held for what happens when they are dropped")]
enum Process {
    Emulator(Killed),
    Blackhole(Running),
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Server {
    /// Starts one. A blackhole remembers what comes only if told to.
    pub(crate) fn start(kind: Kind, log: bool) -> Self {
        match kind {
            Kind::Emulator => Self::emulator(),
            Kind::Blackhole => Self::blackhole(log),
        }
    }

    fn emulator() -> Self {
        let mut child = Command::new(crate::sink_path())
            .args(["emulator", "--listen", "127.0.0.1:0", "--api-key", "bench"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built with the bench");
        let mut line = String::new();
        let out = child.stderr.as_mut().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("a pipe can be read");
        let base = line.split_whitespace().last().unwrap_or_default().to_owned();
        assert!(base.starts_with("http://127.0.0.1:"), "the emulator said {line:?}");
        Self { base, running: Process::Emulator(Killed(child)) }
    }

    fn blackhole(log: bool) -> Self {
        let mut command = Command::new(crate::own_path());
        command.arg("serve").args(log.then_some("--log"));
        let mut running = Running::start(&mut command);
        let base = running.first_line();
        Self { base, running: Process::Blackhole(running) }
    }

    /// The requests it got, in the order they came.
    pub(crate) fn requests(&self) -> Vec<Sent> {
        let _stays_up = &self.running;
        let root = self.base.split("/api/").next().unwrap_or_default();
        let url = format!("{root}/__admin/requests");
        let body = crate::block_on(async {
            let response = reqwest::get(url).await.expect("the server is up");
            response.bytes().await.expect("the server answers to the end")
        });
        serde_json::from_slice(&body).expect("a list of requests")
    }
}
