//! The command line of usercom-sink.

fn main() {}
