//! Exit codes and output.

use std::io::Write;
use std::process::ExitCode;

/// Exit codes. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success: all records are settled.
    Done = 0,
    /// A test failed, or an unexpected error occurred.
    Failed = 1,
    /// Wrong command line.
    Usage = 2,
    /// There are dead letters and `--fail-on-dead-letter` is set, or unmatched records and
    /// `--fail-on-unmatched`.
    DeadLetters = 65,
    /// Stopped with records left in a disk buffer.
    WorkLeft = 75,
    /// The API key was refused.
    KeyRefused = 77,
    /// Bad config.
    BadConfig = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Writes a result to stdout. A closed pipe is not an error.
pub(super) fn print(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => fail(&format!("cannot write to standard output: {error}")),
    }
}

/// Text of unknown origin on one line: what a terminal could act on is escaped, quotes are not.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' | '"' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// Writes an error to stderr.
pub(super) fn fail(message: &str) -> Exit {
    eprint(&format!("error: {message}\n"));
    Exit::Failed
}

/// Writes to stderr and ignores errors.
pub(super) fn eprint(text: &str) {
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}
