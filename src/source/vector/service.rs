//! One request: events in, a status out.
//!
//! Invariant: what a request brought goes its way to the end, whether or not its sender still waits
//! for the answer.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::door::Turn;
use super::event::decode;
use super::generated::vector::vector_server::Vector;
use super::generated::vector::{
    HealthCheckRequest, HealthCheckResponse, PushEventsRequest, PushEventsResponse, ServingStatus,
};
use crate::record::{AckOn, Record};
use crate::source::push::{NotTaken, Push};

/// The service `vector.Vector`.
pub(super) struct Service {
    pub(super) push: Arc<Push>,
    pub(super) ack_on: AckOn,
    pub(super) stop: CancellationToken,
    /// Requests whose events are on their way.
    pub(super) tasks: TaskTracker,
}

#[tonic::async_trait]
impl Vector for Service {
    async fn push_events(
        &self,
        request: Request<PushEventsRequest>,
    ) -> Result<Response<PushEventsResponse>, Status> {
        if self.stop.is_cancelled() {
            return Err(draining());
        }
        let turn = request.extensions().get::<Turn>().cloned();
        let events = request.into_inner().events;
        let records: Vec<Record> =
            events.iter().map(|event| decode(event).into_record(self.ack_on)).collect();
        drop(events);
        if let Some(turn) = turn {
            turn.done();
        }
        let (push, stop) = (Arc::clone(&self.push), self.stop.clone());
        // A sender that gives up drops this call, but not the task.
        let task = self.tasks.spawn(async move {
            match push.take(records, ()).await {
                Ok(_) => Ok(Response::new(PushEventsResponse {})),
                Err(_) if stop.is_cancelled() => Err(draining()),
                Err(NotTaken::Busy) => {
                    Err(Status::resource_exhausted("the pipeline is full, send it again"))
                }
                Err(NotTaken::Unsettled) => {
                    Err(Status::internal("some events were not settled, send them again"))
                }
            }
        });
        task.await.unwrap_or_else(|_| Err(Status::internal("the events were not settled")))
    }

    async fn health_check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = match self.stop.is_cancelled() {
            true => ServingStatus::NotServing,
            false => ServingStatus::Serving,
        };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }
}

fn draining() -> Status {
    Status::unavailable("going away, send it again")
}
