//! The program `usercom-sink` with the Fluvio source, alone in a package of its own: Fluvio's tool
//! `cdk` builds and starts the first target of the package that `Connector.toml` stands beside.

use std::process::ExitCode;

/// As in `usercom-sink` itself.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    usercom_sink::cli::main()
}
