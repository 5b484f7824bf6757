//! Delivery proven by faults: the built binary against a local User.com that misbehaves, behind a
//! connection that misbehaves, with kills. The full sizes are soaks:
//! `cargo test -- --ignored soak --nocapture`.

#![allow(clippy::print_stdout, reason = "soaks print their figures")]

mod crash;
mod memory;
mod pace;
mod poison;
mod revoked;
mod shutdown;
mod storm;
