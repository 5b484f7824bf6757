//! The program usercom-sink. All of it is in the library, in `cli`.

use std::process::ExitCode;

/// With the allocator of the C library a delivery takes two fifths more processor time. A library
/// must not choose the allocator; a program may.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    usercom_sink::cli::main()
}
