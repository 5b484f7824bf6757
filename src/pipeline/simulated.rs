//! An account that is not there: a sink's requests are counted and answered as those of an empty
//! account with the users that are known, and nothing is sent.
//!
//! # Invariants
//! Requests are answered only while records are ahead of them, as with a server that is slower than
//! reading: what can be folded waits together as it would in a run.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::config::account::UpsertAnswer;
use crate::deliver::{ApiReply, Attempts, Request, SendError, Transport};
use crate::telemetry::{SinkMetrics, SinkPhase};
use crate::usercom::EmptyAccountStub;

/// How often requests are answered, and how many at a time.
const ANSWER_INTERVAL: Duration = Duration::from_millis(1);
const ANSWERS_AT_A_TIME: usize = 16;

/// Requests do not wait longer than this for the next records: a source may be slow.
const MAX_WAIT_FOR_RECORDS: Duration = Duration::from_secs(1);

/// Counts and answers requests.
pub(super) struct SimulatedTransport {
    account: EmptyAccountStub,
    metrics: SinkMetrics,
    answers: Arc<Semaphore>,
    /// Ends with this value.
    _pacer: JoinSet<()>,
}

impl SimulatedTransport {
    /// An account that has the users and companies of the `saved` look-ups and answers upserts like
    /// this. Must be called within a runtime.
    pub(super) fn new(
        metrics: SinkMetrics,
        saved: &[(String, String)],
        upsert_answer: UpsertAnswer,
    ) -> Self {
        let answers = Arc::new(Semaphore::new(0));
        let mut pacer = JoinSet::new();
        pacer.spawn(pace(metrics.clone(), Arc::clone(&answers)));
        let account = EmptyAccountStub::knowing(saved, upsert_answer);
        Self { account, metrics, answers, _pacer: pacer }
    }
}

#[async_trait]
impl Transport for SimulatedTransport {
    async fn send(
        &self,
        request: &Request,
        attempts: &mut Attempts,
    ) -> Result<ApiReply, SendError> {
        attempts.sent = attempts.sent.saturating_add(1);
        self.metrics.request(request.method.as_str(), request.route);
        match self.answers.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(SendError::Stopped),
        }
        Ok(self.account.reply(request))
    }
}

/// Lets requests be answered, some at a time.
async fn pace(metrics: SinkMetrics, answers: Arc<Semaphore>) {
    let (mut received, mut changed) = (0, Instant::now());
    loop {
        sleep(ANSWER_INTERVAL).await;
        if metrics.all_received() != received {
            (received, changed) = (metrics.all_received(), Instant::now());
        }
        // The catalogue is read before any record.
        let is_starting = metrics.activity().present().phase == SinkPhase::Starting;
        let is_ahead = is_starting || metrics.activity().is_full();
        if is_ahead || changed.elapsed() >= MAX_WAIT_FOR_RECORDS {
            let missing = ANSWERS_AT_A_TIME.saturating_sub(answers.available_permits());
            answers.add_permits(missing);
        } else {
            answers.forget_permits(ANSWERS_AT_A_TIME);
        }
    }
}
