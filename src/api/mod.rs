//! The HTTP API of the program: metrics, probes, status, dead letters, tap and playground, as JSON
//! for programs and as a page for people.
//!
//! # Invariants
//! Every request passes the `guard`. Texts of records reach a page only through the escaping of
//! the template crate, or as JSON.

mod dead_letters;
mod guard;
mod page;
mod playground;
mod probes;
mod server;
mod sse;
mod tap;
mod wrong_tokens;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::routing::{get, post};

use crate::buffer::{DeadLetterFilter, Store};
use crate::record::Record;
use crate::telemetry::{Components, Metrics, StatusRecorder};

pub use guard::AccessRules;
pub use playground::{
    Playground, PlaygroundInput, PlaygroundReport, PlaygroundText, TriedRecord, TriedRequest,
    TriedRule,
};
pub use server::{Bound, bind};

/// Sends dead letters through the running pipeline again.
#[async_trait]
pub trait Replayer: Send + Sync {
    /// Sends the selected dead letters of some sinks again, and waits until each has a new status.
    ///
    /// # Errors
    /// Why nothing could be sent, in words.
    async fn replay(
        &self,
        sinks: Vec<String>,
        filter: DeadLetterFilter,
    ) -> Result<Replayed, String>;

    /// How far the replay is that runs now.
    fn progress(&self) -> Option<ReplayProgress>;

    /// The replay that ended last.
    fn last(&self) -> Option<EndedReplay>;
}

/// The result of a replay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Replayed {
    /// Dead letters that were sent through the pipeline.
    pub replayed: u64,
    /// Of these, settled: delivered, or stored in a disk buffer for delivery.
    pub delivered: u64,
    /// Of these, still or again in the dead letters.
    pub kept: u64,
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ReplayProgress {
    /// Its number, counted from 1 since the start of the process.
    pub id: u64,
    /// Dead letters to send.
    pub total: u64,
    /// Those with a new status.
    pub done: u64,
}

/// A replay that has ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EndedReplay {
    /// Its number.
    pub id: u64,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: ReplayOutcome,
}

/// What became of a replay.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum ReplayOutcome {
    /// Every dead letter has a new status.
    Done(Replayed),
    /// It ended early; the dead letters that are left stay.
    Failed {
        /// Why, in words.
        error: String,
    },
}

/// Dry-runs a record of the tap.
#[async_trait]
pub trait TapView: Send + Sync {
    /// The calls and requests that a record of a sink becomes.
    async fn view(&self, sink: &str, record: Record) -> Option<TriedRecord>;
}

/// What of a running pipeline the API serves.
#[derive(Clone)]
pub struct Service {
    /// Where `/metrics` comes from.
    pub metrics: Metrics,
    /// The components.
    pub components: Components,
    /// Their status.
    pub recorder: StatusRecorder,
    /// Where the dead letters are.
    pub store: Store,
    /// Sends dead letters again.
    pub replayer: Arc<dyn Replayer>,
    /// Shows what tapped records become.
    pub tap: Arc<dyn TapView>,
    /// Whether the tap shows values.
    pub show_values: bool,
}

/// What the API serves.
#[derive(Clone)]
pub struct ApiState {
    /// The running pipeline; `None` for a playground alone.
    pub service: Option<Service>,
    /// The playground.
    pub playground: Arc<dyn Playground>,
    /// Who may ask for what.
    pub access: Arc<AccessRules>,
}

/// All routes.
fn router(state: ApiState) -> Router {
    let open = Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/metrics", get(probes::metrics))
        .route("/ready", get(probes::ready))
        .route("/api/v1/status", get(probes::status))
        .route("/api/v1/history", get(probes::history))
        .route("/", get(page::status))
        .route("/events", get(sse::status_events))
        .route("/login", get(page::login_form).post(guard::login))
        .route("/logout", post(guard::logout))
        .route("/assets/page.css", get(page::css))
        .route("/assets/page.js", get(page::js));
    let guarded = Router::new()
        .route("/dead-letters", get(page::dead_letters))
        .route("/dead-letters/{id}", get(page::dead_letter))
        .route("/tap", get(page::tap))
        .route("/playground", get(page::playground))
        .route("/api/v1/dead-letters", get(dead_letters::list))
        .route("/api/v1/dead-letters/export", get(dead_letters::export))
        .route(
            "/api/v1/dead-letters/replay",
            post(dead_letters::replay).get(dead_letters::progress),
        )
        .route("/api/v1/dead-letters/purge", post(dead_letters::purge))
        .route("/api/v1/dead-letters/{id}", get(dead_letters::show))
        .route("/api/v1/tap", get(tap::events))
        .route("/api/v1/playground", post(playground::try_out))
        .layer(axum::middleware::from_fn_with_state(state.clone(), guard::signed_in));
    open.merge(guarded)
        .fallback(page::not_found)
        .layer(axum::middleware::from_fn_with_state(state.clone(), guard::protect))
        .with_state(state)
}
