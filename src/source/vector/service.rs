//! One push: records in, a status out.
//!
//! # Invariants
//! What a request brought goes its way to the end, whether or not its sender still waits for the
//! answer. Requests of one connection enter the pipeline one after the other.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::door::{Parcel, Parcels};
use super::generated::vector::vector_server::Vector;
use super::generated::vector::{
    HealthCheckRequest, HealthCheckResponse, PushEventsRequest, PushEventsResponse, ServingStatus,
};
use crate::source::push::{NotTaken, Outcome, Push};

/// The service `vector.Vector`.
pub(super) struct Service {
    pub(super) push: Arc<Push>,
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
        let parcel = request.extensions().get::<Parcels>().and_then(Parcels::take);
        let parcel = parcel.ok_or_else(|| Status::internal("the events were not unpacked"))?;
        let (push, stop) = (Arc::clone(&self.push), self.stop.clone());
        // A sender that gives up drops this call, but not the task.
        let task = self.tasks.spawn(async move {
            match enter(&push, parcel).await {
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

/// Sends the records of a request when it is their turn, and waits until they are settled. The next
/// request has its turn as soon as they are sent.
async fn enter(push: &Push, parcel: Parcel) -> Result<Outcome, NotTaken> {
    let Parcel { records, share, ticket } = parcel;
    ticket.turn().await;
    let entered = push.enter(records, share).await;
    drop(ticket);
    entered?.settled().await
}

fn draining() -> Status {
    Status::unavailable("going away, send it again")
}
