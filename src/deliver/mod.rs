//! Delivery: how requests get through, whatever the server does.

mod wire;

pub use wire::{Attempts, Method, Repeat, Reply, Request, SendError, Transport};
