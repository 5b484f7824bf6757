//! Handles one push: sends its records and returns a status.
//!
//! # Invariants
//!
//! The records of a request are processed to the end, whether or not its client still waits.
//! Requests of one connection enter the pipeline one after the other.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::admission::{RequestSlot, UnpackedRequest};
use super::generated::vector::vector_server::Vector;
use super::generated::vector::{
    HealthCheckRequest, HealthCheckResponse, PushEventsRequest, PushEventsResponse, ServingStatus,
};
use crate::source::ingest::{IngestError, IngestOutcome, RequestIngest};

/// The service `vector.Vector`.
pub(super) struct VectorService {
    pub(super) push: Arc<RequestIngest>,
    pub(super) stop: CancellationToken,
    /// Requests whose events are in progress.
    pub(super) tasks: TaskTracker,
}

#[tonic::async_trait]
impl Vector for VectorService {
    async fn push_events(
        &self,
        request: Request<PushEventsRequest>,
    ) -> Result<Response<PushEventsResponse>, Status> {
        if self.stop.is_cancelled() {
            return Err(draining());
        }
        let unpacked = request.extensions().get::<RequestSlot>().and_then(RequestSlot::take);
        let unpacked = unpacked.ok_or_else(|| Status::internal("the events were not unpacked"))?;
        let (push, stop) = (Arc::clone(&self.push), self.stop.clone());
        // A client that disconnects drops this call, but not the task.
        let task = self.tasks.spawn(async move {
            match enter(&push, unpacked).await {
                Ok(_) => Ok(Response::new(PushEventsResponse {})),
                Err(_) if stop.is_cancelled() => Err(draining()),
                Err(IngestError::Full) => {
                    Err(Status::resource_exhausted("the pipeline is full, send it again"))
                }
                Err(IngestError::Unacknowledged) => {
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

/// Sends the records of a request when it may proceed, and waits until they are settled. The next
/// request may proceed as soon as they are sent.
async fn enter(
    push: &RequestIngest,
    unpacked: UnpackedRequest,
) -> Result<IngestOutcome, IngestError> {
    let UnpackedRequest { records, reservation, ticket } = unpacked;
    ticket.turn().await;
    let entered = push.enter(records, reservation).await;
    drop(ticket);
    entered?.settled().await
}

fn draining() -> Status {
    Status::unavailable("going away, send it again")
}
