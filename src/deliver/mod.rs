//! Delivery: sends requests until there is a final response, whatever the server does.
//!
//! [`HttpTransport`] combines parts without I/O: [`outcome`] classifies an attempt, [`retry`]
//! decides how long to wait, [`rate`] and [`quota`] when the next attempt may start,
//! [`concurrency`] how many run at once, [`pause`] and [`auth`] when none may. Delivery knows
//! requests, not their meaning.

mod admission;
pub mod auth;
pub mod concurrency;
mod connections;
mod dispatcher;
mod http;
mod observer;
pub mod outage;
pub mod outcome;
pub mod pause;
pub mod poison;
pub mod quota;
pub mod rate;
mod request;
pub mod retry;
mod routes;
mod single;
mod subject;
mod transport;

pub use auth::{AuthBreakerState, OnAuthFailure};
pub use http::{HttpTransport, TransportError, TransportSettings};
pub use observer::{DeliveryObserver, NoopDeliveryObserver};
pub use poison::{PoisonPolicy, RunMode};
pub use quota::LearnedQuota;
pub use request::{ApiReply, Expects, Idempotency, MAX_RESPONSE_BYTES, Method, Need, Request};
pub use single::{SingleAttemptClient, SingleReply};
pub use subject::Subject;
pub use transport::{Attempts, BeforeSend, Denial, SendError, Stalled, Transport};
