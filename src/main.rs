//! The command line of usercom-sink: everything it does is in the library's `cli`.

use std::process::ExitCode;

/// The system's own keeps what many short lives leave between a few long ones, and takes a quarter
/// of the time this program uses to deliver. A library does not choose this for its user.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    usercom_sink::cli::main()
}
