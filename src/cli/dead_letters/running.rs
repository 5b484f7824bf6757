//! `replay` and `purge` while the pipeline runs: its process does it, asked by its HTTP API.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::DeadLetterSelector;
use crate::cli::output::{Exit, eprint};
use crate::cli::service::{ServiceClient, ServiceError};
use crate::config::Pipeline;
use crate::telemetry::Status;

/// How often it is asked whether a long replay has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How often the progress of a long replay is printed, in polls.
const POLLS_PER_LINE: u32 = 20;

#[derive(Deserialize)]
struct Purged {
    purged: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct ReplayCounts {
    replayed: u64,
    delivered: u64,
    kept: u64,
}

/// A replay that is still running, or the last one.
#[derive(Deserialize)]
struct Progress {
    running: Option<Running>,
    last: Option<Last>,
}

#[derive(Clone, Copy, Deserialize)]
struct Running {
    id: u64,
    total: u64,
    done: u64,
}

#[derive(Deserialize)]
struct Last {
    id: u64,
    #[serde(flatten)]
    outcome: ReplayEnd,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ReplayEnd {
    Done(ReplayCounts),
    Failed { error: String },
}

/// The answer to a replay: done, or still running after the time of an answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum ReplayAnswer {
    Done(ReplayCounts),
    Begun(Progress),
}

impl DeadLetterSelector {
    /// The selection as the API takes it.
    fn body(&self) -> Value {
        let narrowed = !self.ids.is_empty() || self.reason.is_some() || self.since.is_some();
        let mut body = json!({ "all": !narrowed });
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[key] = value;
            }
        };
        set("sink", self.sink.clone().map(Value::from));
        set("ids", (!self.ids.is_empty()).then(|| json!(self.ids)));
        set("reason", self.reason.clone().map(Value::from));
        set("since", self.since.map(|since| since.to_string().into()));
        body
    }

    pub(super) async fn purge_in_running(
        &self,
        pipeline: &Pipeline,
        owner: Option<u32>,
    ) -> Result<Exit, String> {
        let service = connect(pipeline, owner).await?;
        let answer = service.post("/api/v1/dead-letters/purge", &self.body()).await;
        let Purged { purged } = answer.map_err(|error| error.to_string())?;
        Ok(self.print_purged(purged))
    }

    pub(super) async fn replay_in_running(
        &self,
        pipeline: &Pipeline,
        owner: Option<u32>,
    ) -> Result<Exit, String> {
        let service = connect(pipeline, owner).await?;
        let answer = service.post("/api/v1/dead-letters/replay", &self.body()).await;
        let ReplayCounts { replayed, delivered, kept } = match answer.map_err(|e| e.to_string())? {
            ReplayAnswer::Done(replayed) => replayed,
            ReplayAnswer::Begun(progress) => wait(&service, progress).await?,
        };
        Ok(self.print_replayed(replayed, delivered, kept))
    }
}

/// Waits for the end of a replay that the process has begun. It continues if this command is ended.
async fn wait(service: &ServiceClient, mut progress: Progress) -> Result<ReplayCounts, String> {
    let Some(id) =
        progress.running.map(|running| running.id).or(progress.last.as_ref().map(|last| last.id))
    else {
        return Err("the running pipeline does not say which replay it has begun".to_owned());
    };
    let mut polls = 0_u32;
    loop {
        match progress {
            Progress { running: Some(running), .. } if running.id == id => {
                if polls.is_multiple_of(POLLS_PER_LINE) {
                    let Running { done, total, .. } = running;
                    eprint(&format!(
                        "{done} of {total} replayed; the pipeline goes on with it if this command is ended\n"
                    ));
                }
            }
            Progress { last: Some(Last { id: ended, outcome }), .. } if ended == id => {
                return match outcome {
                    ReplayEnd::Done(replayed) => Ok(replayed),
                    ReplayEnd::Failed { error } => Err(error),
                };
            }
            _ => {
                return Err("the replay has ended, but another has begun since then: `dead-letters list` shows what is left".to_owned());
            }
        }
        sleep(POLL_INTERVAL).await;
        polls += 1;
        let asked = service.get("/api/v1/dead-letters/replay").await;
        progress = asked.map_err(|error: ServiceError| {
            format!("the replay was begun, but its end is not known: {error}")
        })?;
    }
}

/// A client of the process that uses the store.
async fn connect(pipeline: &Pipeline, owner: Option<u32>) -> Result<ServiceClient, String> {
    let process =
        owner.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let used = format!("data_dir `{}` is in use by {process}", pipeline.data_dir.display());
    let api = pipeline.api.clone().unwrap_or_default();
    let Some(service) = ServiceClient::new(&api)? else {
        return Err(format!(
            "{used}, and only that process can change its dead letters; this command reaches it by its HTTP API, which is not configured. Write\n\n    [api]\n    listen = \"127.0.0.1:8686\"\n\ninto the pipeline file and restart the pipeline; or stop it and run this command again"
        ));
    };
    let status: Result<Status, _> = service.get("/api/v1/status").await;
    match status {
        Ok(status) if owner.is_some() && status.process_id.is_some_and(|id| Some(id) != owner) => {
            Err(format!(
                "{used}, but {} belongs to process {}: set `listen` in `[api]` to an address of its own, and restart the pipeline",
                service.url("/"),
                status.process_id.unwrap_or_default()
            ))
        }
        Ok(_) => Ok(service),
        Err(error @ ServiceError::Unreachable { .. }) => Err(format!(
            "{used}, but its HTTP API does not answer ({error}). If that process is the pipeline, it was started before `listen` was set in `[api]`: restart it, or stop it and run this command again. If it is another command, wait until it has ended"
        )),
        Err(error) => Err(format!("{used}, but its HTTP API cannot be used: {error}")),
    }
}
