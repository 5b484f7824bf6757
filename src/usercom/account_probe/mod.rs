//! Finds out by experiment what an account does where the documentation of User.com does not say.
//!
//! It writes users, companies and events whose ids and names begin with [`PREFIX`], reads them back,
//! and deletes what it made.
//!
//! # Invariants
//! At most [`MAX_REQUESTS`] requests are sent, each once. After a 401, 403 or 429 nothing more is
//! asked.

mod attributes;
mod companies;
mod events;
mod finding;
mod page_views;
mod session;
mod users;

use std::fmt::Write as _;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::deliver::SingleAttemptClient;

pub use finding::{Finding, FindingOutcome, FoundSetting};
pub use session::ProbeEnd;
use session::{ProbeSession, ProbeStop};

/// What the ids and names of everything begin with that is made.
pub const PREFIX: &str = "usercom-sink-probe-";

/// Requests of one probe at most, those that delete what was made included.
pub const MAX_REQUESTS: usize = 200;

/// What may be asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProbeOptions {
    /// Whether experiments may leave custom attributes behind.
    pub attributes: bool,
    /// Whether what was made stays, for a look at it in the app.
    pub keep: bool,
}

/// What was found out.
#[derive(Debug, Serialize)]
pub struct ProbeReport {
    /// The answers, in the order of the questions.
    pub findings: Vec<Finding>,
    /// How it ended.
    pub end: ProbeEnd,
    /// What was made and is still there.
    pub left: Vec<String>,
    /// Requests that were sent.
    pub requests: usize,
}

impl ProbeReport {
    /// The answers that the sink cannot work with.
    pub fn unworkable(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| matches!(finding.outcome, FindingOutcome::Unworkable(_)))
    }

    /// The facts as a pipeline file for a sink.
    pub fn facts_file(&self, sink: &str) -> String {
        let mut text = format!(
            "# Facts of the account of sink `{}`, found by `usercom-sink probe` at {}.\n# Use: \
             usercom-sink run -c PIPELINE -c THIS_FILE\n\n[sinks.{}.account]\n",
            sink.escape_debug(),
            clock::now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            toml_key(sink),
        );
        for setting in self.findings.iter().filter_map(|finding| finding.setting.as_ref()) {
            // Words and numbers are written in TOML as in JSON.
            writeln!(text, "{} = {}", setting.key, setting.value).expect("a string takes all");
        }
        text
    }
}

/// A name as a key of TOML.
fn toml_key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        // A basic string escapes as JSON does.
        false => serde_json::Value::from(name).to_string(),
    }
}

/// Asks everything. `stop` ends it early; what was made is deleted all the same.
pub async fn probe_account(
    client: &SingleAttemptClient,
    options: ProbeOptions,
    stop: CancellationToken,
) -> ProbeReport {
    let mut session = ProbeSession::new(client, stop);
    let asked = ask_everything(&mut session, options).await;
    let end = session.end(asked).await;
    let left = if options.keep { session.made() } else { session.clean_up().await };
    ProbeReport { end, left, requests: session.sent(), findings: session.findings }
}

async fn ask_everything(
    session: &mut ProbeSession<'_>,
    options: ProbeOptions,
) -> Result<(), ProbeStop> {
    session.check_key().await?;
    let people = users::upserts(session).await?;
    users::visibility(session, &people).await?;
    users::ids(session).await?;
    users::nulls(session, &people).await?;
    users::key_in_upsert(session).await?;
    events::ask(session, &people).await?;
    page_views::ask(session, &people).await?;
    companies::ask(session, &people).await?;
    if options.attributes {
        attributes::ask(session, &people).await
    } else {
        attributes::leave_out(session);
        Ok(())
    }
}
