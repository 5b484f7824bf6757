//! The command line of usercom-sink: everything it does is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    usercom_sink::cli::main()
}
