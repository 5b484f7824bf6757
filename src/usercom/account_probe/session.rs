//! Sends the requests of a probe, counts them, and remembers what was made and what was found.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::finding::{Finding, FindingOutcome, FoundSetting};
use super::{MAX_REQUESTS, PREFIX};
use crate::deliver::{
    ApiReply, Expects, Idempotency, Method, Request, SingleAttemptClient, SingleReply,
};
use crate::usercom::endpoint;
use crate::usercom::executor::key_check;
use crate::usercom::outcome::{excerpt, remediation};

/// Requests that are kept for deleting what was made.
const RESERVED_REQUESTS: usize = 50;

/// The longest text of an answer that is shown, in characters.
const MAX_SHOWN: usize = 120;

/// Pauses between looks at something that is not shown yet: one minute in all.
const VISIBILITY_PAUSES: [u64; 12] = [1, 1, 1, 1, 2, 2, 4, 8, 10, 10, 10, 10];

/// The longest pause between two deletions after a 429.
const CLEAN_UP_PAUSE: Duration = Duration::from_secs(1);

/// How a probe ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeEnd {
    /// Everything was asked.
    Complete,
    /// The API key was refused: the status, and what to do.
    KeyRefused(String),
    /// It stopped early, for this reason.
    Stopped(String),
}

/// Why nothing more is asked.
#[derive(Debug)]
pub(super) enum ProbeStop {
    /// 401, 402, 403 or 429.
    Refused { status: u16, request: String, retry_after: Option<Duration> },
    /// No answer.
    NoAnswer { request: String, why: String },
    /// The first answer is not one of the API.
    NotTheApi { status: u16 },
    /// Something that later questions rest on does not work. It has a finding.
    Unworkable,
    /// All requests are used up.
    OutOfRequests,
    /// A signal.
    Interrupted,
}

/// Something that was made.
#[derive(Debug, Clone)]
struct MadeObject {
    /// What it is, for the report.
    what: String,
    /// The path that deletes it; without one it stays.
    path: Option<(&'static str, String)>,
}

/// An answer, with what is needed to report it.
pub(super) struct ProbeAnswer {
    pub(super) status: u16,
    pub(super) body: Value,
    text: String,
}

impl ProbeAnswer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The status, and for a refusal what it says.
    pub(super) fn told(&self) -> String {
        match self.is_success() {
            true => self.status.to_string(),
            false => format!("{} {}", self.status, self.text).trim_end().to_owned(),
        }
    }

    /// The number of the user or company.
    pub(super) fn number(&self) -> Option<u64> {
        self.body.get("id").and_then(endpoint::number)
    }
}

/// One run of the probe.
pub(super) struct ProbeSession<'c> {
    client: &'c SingleAttemptClient,
    stop: CancellationToken,
    /// What the ids of this run begin with.
    run: String,
    sent: usize,
    made: Vec<MadeObject>,
    /// How long writes take to be seen, as far as it was noticed.
    delay: Duration,
    last: String,
    /// When a refusal may be over.
    retry_after: Option<Duration>,
    pub(super) findings: Vec<Finding>,
}

impl<'c> ProbeSession<'c> {
    pub(super) fn new(client: &'c SingleAttemptClient, stop: CancellationToken) -> Self {
        let run: u32 = rand::random();
        Self {
            client,
            stop,
            run: format!("{PREFIX}{run:08x}"),
            sent: 0,
            made: Vec::new(),
            delay: Duration::ZERO,
            last: String::new(),
            retry_after: None,
            findings: Vec::new(),
        }
    }

    /// Requests that were sent.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    /// An id of this run.
    pub(super) fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.run)
    }

    /// Notes something that is to be deleted at the end.
    pub(super) fn note_made(&mut self, what: String, route: &'static str, path: String) {
        if self.made.iter().all(|made| made.what != what) {
            self.made.push(MadeObject { what, path: Some((route, path)) });
        }
    }

    /// Notes something that no request deletes.
    pub(super) fn note_permanent(&mut self, what: String) {
        if self.made.iter().all(|made| made.what != what) {
            self.made.push(MadeObject { what, path: None });
        }
    }

    /// Notes a user by external id.
    pub(super) fn note_user(&mut self, id: &str) {
        if let Some(segment) = endpoint::segment(id) {
            let path = format!("users-by-id/{segment}/");
            self.note_made(format!("user {id}"), "users-by-id/:id/", path);
        }
    }

    /// Notes a user that has no safe external id, or none.
    pub(super) fn note_numbered_user(&mut self, id: &str, number: Option<u64>) {
        match number {
            Some(number) => {
                self.note_made(format!("user {id}"), "users/:id/", format!("users/{number}/"));
            }
            None => self.note_permanent(format!("user {id}")),
        }
    }

    /// Notes a company.
    pub(super) fn note_company(&mut self, id: &str, number: Option<u64>) {
        match (number, endpoint::segment(id)) {
            (Some(number), _) => {
                let path = format!("companies/{number}/");
                self.note_made(format!("company {id}"), "companies/:id/", path);
            }
            (None, Some(segment)) => {
                let path = format!("companies-by-id/{segment}/");
                self.note_made(format!("company {id}"), "companies-by-id/:id/", path);
            }
            (None, None) => self.note_permanent(format!("company {id}")),
        }
    }

    pub(super) async fn get(&mut self, path: String) -> Result<ProbeAnswer, ProbeStop> {
        self.ask(Method::Get, path, None).await
    }

    pub(super) async fn post(
        &mut self,
        path: impl Into<String>,
        body: Value,
    ) -> Result<ProbeAnswer, ProbeStop> {
        self.ask(Method::Post, path.into(), Some(body)).await
    }

    /// An upsert of a user, which is noted as made.
    pub(super) async fn upsert(&mut self, body: Value) -> Result<ProbeAnswer, ProbeStop> {
        if let Some(id) = body["custom_id"].as_str() {
            self.note_user(id);
        }
        self.post("users/update_or_create/", body).await
    }

    async fn ask(
        &mut self,
        method: Method,
        path: String,
        body: Option<Value>,
    ) -> Result<ProbeAnswer, ProbeStop> {
        if self.stop.is_cancelled() {
            return Err(ProbeStop::Interrupted);
        }
        if self.sent + RESERVED_REQUESTS >= MAX_REQUESTS {
            return Err(ProbeStop::OutOfRequests);
        }
        let told = body.as_ref().map_or_else(String::new, |body| format!(" {body}"));
        self.last = format!("{} {path}{told}", method.as_str());
        let body = body.map(|body| Bytes::from(body.to_string()));
        let request = request(method, "probe", path, body);
        let reply = self.send(&request).await?;
        if matches!(reply.status, 401..=403 | 429) {
            return Err(ProbeStop::Refused {
                status: reply.status,
                request: self.shown_request(),
                retry_after: reply.retry_after,
            });
        }
        Ok(answer(reply))
    }

    async fn send(&mut self, request: &Request) -> Result<SingleReply, ProbeStop> {
        self.sent += 1;
        self.client.send(request).await.map_err(|why| ProbeStop::NoAnswer {
            request: format!("{} {}", request.method.as_str(), self.short(&request.path)),
            why,
        })
    }

    /// The last request, with the ids of this run shortened.
    pub(super) fn shown_request(&self) -> String {
        self.short(&self.last)
    }

    /// Makes an earlier request the one that findings show.
    pub(super) fn show_instead(&mut self, sent: String) {
        self.last = sent;
    }

    /// A text with the beginning of ids shortened, on one line.
    pub(super) fn short(&self, text: &str) -> String {
        let text: String = text.replace(&self.run, "…");
        let mut shown: String = text.chars().take(MAX_SHOWN).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        shown
    }

    /// Notes an answer to a question that was asked by the last request.
    pub(super) fn found(
        &mut self,
        question: &'static str,
        answered: impl Into<String>,
        setting: Option<FoundSetting>,
        effect: &'static str,
    ) {
        let sent = self.shown_request();
        self.found_by(question, sent, answered, setting, effect);
    }

    /// The same for a question that an earlier request asked.
    pub(super) fn found_by(
        &mut self,
        question: &'static str,
        sent: String,
        answered: impl Into<String>,
        setting: Option<FoundSetting>,
        effect: &'static str,
    ) {
        let answered = self.short(&answered.into());
        let outcome = FindingOutcome::Answered;
        self.findings.push(Finding { question, sent, answered, setting, effect, outcome });
    }

    /// Notes an answer that the sink cannot work with.
    pub(super) fn cannot_work(
        &mut self,
        question: &'static str,
        sent: String,
        answered: impl Into<String>,
        why: &str,
    ) {
        let answered = self.short(&answered.into());
        self.findings.push(Finding {
            question,
            sent,
            answered,
            setting: None,
            effect: "the sink cannot work with this account",
            outcome: FindingOutcome::Unworkable(why.to_owned()),
        });
    }

    /// Waits until something is there that was written; `None` if it is still not after a minute.
    /// What is returned is how long it took.
    pub(super) async fn until_seen(
        &mut self,
        path: &str,
    ) -> Result<Option<(Duration, ProbeAnswer)>, ProbeStop> {
        let mut waited = Duration::ZERO;
        for pause in std::iter::once(0).chain(VISIBILITY_PAUSES) {
            waited += self.pause(Duration::from_secs(pause)).await?;
            let answer = self.get(path.to_owned()).await?;
            if answer.is_success() && answer.body.is_object() {
                self.delay = self.delay.max(waited);
                return Ok(Some((waited, answer)));
            }
        }
        Ok(None)
    }

    /// Looks at something until `holds`, as long as other writes took to be seen.
    pub(super) async fn look(
        &mut self,
        path: &str,
        holds: impl Fn(&ProbeAnswer) -> bool,
    ) -> Result<bool, ProbeStop> {
        let answer = self.get(path.to_owned()).await?;
        if holds(&answer) {
            return Ok(true);
        }
        if self.delay.is_zero() {
            return Ok(false);
        }
        self.pause(self.delay * 2).await?;
        Ok(holds(&self.get(path.to_owned()).await?))
    }

    async fn pause(&self, length: Duration) -> Result<Duration, ProbeStop> {
        tokio::select! {
            () = self.stop.cancelled() => Err(ProbeStop::Interrupted),
            () = tokio::time::sleep(length) => Ok(length),
        }
    }

    /// Whether the key is good and the API is there.
    pub(super) async fn check_key(&mut self) -> Result<(), ProbeStop> {
        self.last = "GET attributes/".to_owned();
        let reply = self.send(&key_check()).await?;
        match reply.status {
            200..300 if !reply.is_page => Ok(()),
            status @ (401..=403 | 429) => Err(ProbeStop::Refused {
                status,
                request: self.shown_request(),
                retry_after: reply.retry_after,
            }),
            status => Err(ProbeStop::NotTheApi { status }),
        }
    }

    /// How the probe ended. After a 403 a cheap request tells whether it is the key.
    pub(super) async fn end(&mut self, asked: Result<(), ProbeStop>) -> ProbeEnd {
        let stop = match asked {
            Ok(()) => return ProbeEnd::Complete,
            Err(stop) => stop,
        };
        ProbeEnd::Stopped(match stop {
            ProbeStop::Refused { status: status @ (401 | 402), .. } => {
                return ProbeEnd::KeyRefused(format!("status {status}: {}", remediation(status)));
            }
            ProbeStop::Refused { status: 403, request, .. } => {
                let works = self.sent > 1 && self.check_key().await.is_ok();
                if !works {
                    return ProbeEnd::KeyRefused(format!("status 403: {}", remediation(403)));
                }
                format!("`{request}` is forbidden (403), although the API key works")
            }
            ProbeStop::Refused { status, request, retry_after } => {
                self.retry_after = Some(retry_after.unwrap_or(Duration::from_secs(1)));
                format!(
                    "`{request}` was answered {status}: the rate limit is reached. Set \
                     `request.rate_limit_num` to what the account allows and run it again"
                )
            }
            ProbeStop::NoAnswer { request, why } => format!("`{request}` had no answer: {why}"),
            ProbeStop::NotTheApi { status } => {
                format!("the address answers {status}: {}", remediation(404))
            }
            ProbeStop::Unworkable => "later questions rest on what does not work".to_owned(),
            ProbeStop::OutOfRequests => format!("{MAX_REQUESTS} requests are not enough"),
            ProbeStop::Interrupted => "interrupted".to_owned(),
        })
    }

    /// What was made.
    pub(super) fn made(&self) -> Vec<String> {
        self.made.iter().map(|made| made.what.clone()).collect()
    }

    /// Deletes what was made, the newest first. Returns what is still there.
    pub(super) async fn clean_up(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        let mut gives_up = false;
        if let Some(pause) = self.retry_after.filter(|_| !self.made.is_empty()) {
            tokio::time::sleep(pause).await;
        }
        for made in std::mem::take(&mut self.made).into_iter().rev() {
            let Some((route, path)) = made.path else {
                left.push(format!("{} (no request deletes it)", made.what));
                continue;
            };
            if gives_up || self.sent >= MAX_REQUESTS {
                left.push(made.what);
                continue;
            }
            if let Some(pause) = self.retry_after {
                tokio::time::sleep(pause.min(CLEAN_UP_PAUSE)).await;
            }
            let request = request(Method::Delete, route, path, None);
            match self.send(&request).await {
                Ok(reply) if matches!(reply.status, 200..300 | 404 | 410) => {}
                Ok(reply) => {
                    gives_up = matches!(reply.status, 401..=403 | 429);
                    left.push(format!("{} (answered {})", made.what, reply.status));
                }
                Err(ProbeStop::NoAnswer { why, .. }) => {
                    gives_up = true;
                    left.push(format!("{} ({why})", made.what));
                }
                Err(_) => left.push(made.what),
            }
        }
        left
    }
}

fn request(method: Method, route: &'static str, path: String, body: Option<Bytes>) -> Request {
    let idempotency = Idempotency::NonIdempotent;
    Request { method, path, route, body, idempotency, expects: Expects::default() }
}

fn answer(reply: SingleReply) -> ProbeAnswer {
    let is_page = reply.is_page;
    let reply = ApiReply { status: reply.status, body: reply.body };
    let body = if is_page { json!(null) } else { endpoint::json(&reply) };
    ProbeAnswer { status: reply.status, body, text: excerpt(&reply) }
}
