//! The command line of usercom-sink: everything it does is in the library's `cli`.

use std::process::ExitCode;

/// The C library's costs a delivery two fifths more processor time. A library does not choose this
/// for its user, a program does.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    usercom_sink::cli::main()
}
