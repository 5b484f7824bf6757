//! Delivery: how requests get through, whatever the server does.
//!
//! [`HttpTransport`] is a thin shell around pure parts: [`outcome`] judges an attempt, [`retry`]
//! says how long to wait, [`rate`] and [`quota`] when the next may start, [`concurrency`] how many
//! run at once, [`pause`] and [`halt`] when none may. It knows requests, not what they mean.

mod admission;
mod carrier;
pub mod concurrency;
mod connections;
pub mod halt;
mod http;
pub mod outcome;
pub mod pause;
pub mod poison;
mod probe;
pub mod quota;
pub mod rate;
mod redact;
pub mod retry;
mod routes;
mod wire;

pub use halt::{HaltPolicy, HaltState};
pub use http::{HttpTransport, TransportError, TransportSettings};
pub use poison::{PoisonPolicy, Run};
pub use probe::{NoProbe, Probe};
pub use wire::{
    Attempts, BeforeSend, Expects, MAX_REPLY, Method, Need, Repeat, Reply, Request, SendError,
    Stalled, Transport,
};
