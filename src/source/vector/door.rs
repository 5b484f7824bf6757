//! The door of the server: how many requests are read at once and for how long, what they may hold
//! of the memory, and which codes leave.
//!
//! # Invariants
//! No answer to a push has a code on which Vector drops the events. All connections and their
//! requests share one budget of memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service as _;

use super::connection::{Connection, PushUnderWay, Visit};
use super::order::Ticket;
use super::request::{Framed, MAX_EVENTS, RequestError, records};
use super::unwanted::Unwanted;
use crate::record::{AckOn, Record};
use crate::source::memory::{Budget, Share};
use crate::telemetry::SourceMetrics;

/// Requests unpacked at once.
const READERS: usize = 2;

/// How long a request waits for its first share of the memory, and to be unpacked.
const PATIENCE: Duration = Duration::from_secs(10);

/// What all requests together may hold, in bytes, at least.
const BUDGET: usize = 256 << 20;

const PUSH: &str = "/vector.Vector/PushEvents";
const ENCODING: &str = "grpc-encoding";
const CODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,zstd");

/// What a push brought, on its way from the door to the service.
pub(super) struct Parcel {
    pub(super) records: Vec<Record>,
    /// The memory the records take.
    pub(super) share: Share,
    /// The place of the request among those of its connection.
    pub(super) ticket: Ticket,
}

/// A parcel that the service takes out once.
#[derive(Clone)]
pub(super) struct Parcels(Arc<Mutex<Option<Parcel>>>);

impl Parcels {
    fn new(parcel: Parcel) -> Self {
        Self(Arc::new(Mutex::new(Some(parcel))))
    }

    pub(super) fn take(&self) -> Option<Parcel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the door goes by.
pub(super) struct DoorSettings {
    pub(super) source: String,
    /// The largest request, in bytes, packed or not.
    pub(super) largest: usize,
    /// How long a request may take to arrive.
    pub(super) read_timeout: Duration,
    pub(super) ack_on: AckOn,
    pub(super) metrics: Option<SourceMetrics>,
    pub(super) unwanted: Arc<Unwanted>,
    pub(super) tasks: TaskTracker,
}

struct Shared {
    settings: DoorSettings,
    budget: Budget,
    readers: Semaphore,
    /// Whether it was said that a client sends concurrently.
    concurrency_said: AtomicBool,
}

/// The services behind the door.
#[derive(Clone)]
pub(super) struct Door {
    inner: Routes,
    shared: Arc<Shared>,
}

/// The answer to a call.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Door {
    pub(super) fn new(settings: DoorSettings, inner: Routes) -> Self {
        // The largest request stands there as it came, inflated or as JSON, and once more while the
        // text grows.
        let budget = Budget::new(BUDGET.max(settings.largest.saturating_mul(3) + BUDGET / 8));
        let readers = Semaphore::new(READERS);
        let concurrency_said = AtomicBool::new(false);
        let shared = Shared { settings, budget, readers, concurrency_said };
        Self { inner, shared: Arc::new(shared) }
    }

    /// Answers a call. Calls of one connection are made in the order of their arrival, so a push has
    /// its place in that order before this returns.
    pub(super) fn call(&self, connection: &Arc<Connection>, request: Request<Body>) -> Answer {
        let visit = connection.call();
        let (mut inner, shared) = (self.inner.clone(), Arc::clone(&self.shared));
        if request.uri().path() == PUSH {
            let (ticket, under_way, others) = connection.push();
            if others {
                shared.say_concurrency(connection);
            }
            let connection = Arc::clone(connection);
            let push = Push { shared, connection, ticket, _under_way: under_way, _visit: visit };
            return Box::pin(push.answer(inner, request));
        }
        Box::pin(async move {
            let _visit = visit;
            match timeout(shared.settings.read_timeout, inner.call(request)).await {
                Ok(answer) => answer,
                Err(_) => Ok(Status::deadline_exceeded("it came too slowly").into_http()),
            }
        })
    }
}

impl Shared {
    fn say_concurrency(&self, connection: &Connection) {
        if self.concurrency_said.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::warn!(
            source = self.settings.source,
            client = %connection.peer,
            "a client sends several requests at once: each is taken whole and in the order of its \
             arrival, but Vector itself may send events in another order than it read them; where \
             the order of a user's events matters, set `request.concurrency = \"none\"` in Vector's \
             sink (said once)"
        );
    }
}

/// A push at the door.
struct Push {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    ticket: Ticket,
    _under_way: PushUnderWay,
    _visit: Visit,
}

impl Push {
    async fn answer(
        self,
        mut inner: Routes,
        request: Request<Body>,
    ) -> Result<Response<Body>, Infallible> {
        let (mut head, body) = request.into_parts();
        let encoding = head.headers.remove(ENCODING);
        let encoding = encoding.as_ref().and_then(|value| value.to_str().ok());
        let (records, share) = match self.unpack(body, encoding).await {
            Ok(unpacked) => unpacked,
            Err(status) => return Ok(marked(status.into_http())),
        };
        let parcel = Parcel { records, share, ticket: self.ticket };
        head.extensions.insert(Parcels::new(parcel));
        // The service sees an empty message: a flag, a length of 0 and nothing.
        let body = Body::new(Full::new(Bytes::from_static(&[0; 5])));
        let answer = inner.call(Request::from_parts(head, body)).await?;
        Ok(marked(harmless(answer)))
    }

    async fn unpack(
        &self,
        body: Body,
        encoding: Option<&str>,
    ) -> Result<(Vec<Record>, Share), Status> {
        let settings = &self.shared.settings;
        let entered = self.shared.budget.enter(PATIENCE).await;
        let mut share = entered.map_err(|no_room| self.refused(no_room.into()))?;
        let arriving = Framed::read(body, settings.largest, &mut share);
        let framed = match timeout(settings.read_timeout, arriving).await {
            Ok(framed) => framed.map_err(|error| self.refused(error))?,
            Err(_) => return Err(Status::deadline_exceeded("the request came too slowly")),
        };
        let Ok(Ok(_reader)) = timeout(PATIENCE, self.shared.readers.acquire()).await else {
            return Err(Status::resource_exhausted("too many requests at once"));
        };
        let inflated = framed.inflated(encoding, settings.largest, &mut share).await;
        let message = inflated.map_err(|error| self.refused(error))?;
        let (unwanted, ack_on) = (Arc::clone(&settings.unwanted), settings.ack_on);
        // It may take long, and other connections need this thread.
        let unpacking = settings.tasks.spawn_blocking(move || {
            let size = message.len();
            let found = records(&message, &mut share, &unwanted, ack_on);
            drop(message);
            share.shrink(size);
            (found, share)
        });
        match unpacking.await {
            Ok((Ok(records), share)) => Ok((records, share)),
            Ok((Err(error), _)) => Err(self.refused(error)),
            Err(_) => Err(Status::internal("the request was not unpacked")),
        }
    }

    /// Says why a request is refused, and gives the status on which Vector sends it again.
    fn refused(&self, error: RequestError) -> Status {
        let settings = &self.shared.settings;
        let (source, client) = (&settings.source, self.connection.peer);
        if let Some(metrics) = &settings.metrics {
            metrics.refused(error.kind());
        }
        match error {
            RequestError::TooLarge { .. } | RequestError::InflatesTooLarge { .. } => {
                let limit = settings.largest;
                let size = error.size();
                tracing::warn!(
                    source, %client, size, limit,
                    "a request is larger than `max_message_bytes` and is refused; Vector sends it \
                     again without end and nothing behind it gets through: lower \
                     `batch.max_events` of Vector's sink, or raise `max_message_bytes` here"
                );
            }
            RequestError::TooMany => tracing::warn!(
                source, %client, limit = MAX_EVENTS,
                "a request has too many events and is refused; Vector sends it again without end \
                 and nothing behind it gets through: lower `batch.max_events` of Vector's sink"
            ),
            RequestError::NoRoom(_) => tracing::warn!(
                source, %client,
                "a request is refused for want of memory, its sender tries again: many large \
                 requests at once, or one of very many small values; lower `batch.max_events` or \
                 `request.concurrency` of Vector's sink if this goes on"
            ),
            RequestError::UnknownCompression => tracing::warn!(
                source, %client,
                "a request is compressed in a way that is not known here and is refused: set \
                 `compression` of Vector's sink to \"gzip\", \"zstd\" or \"none\""
            ),
            RequestError::Torn => tracing::debug!(source, %client, "a request ended early"),
            RequestError::Broken | RequestError::Malformed(_) => tracing::warn!(
                source, %client, %error,
                "a request cannot be read and is refused; a Vector sends it again without end: \
                 look for what else sends to this port, or damages requests on their way"
            ),
        }
        match error {
            RequestError::Torn => Status::unavailable(error.to_string()),
            RequestError::Malformed(_) | RequestError::Broken => {
                Status::internal(error.to_string())
            }
            _ => Status::resource_exhausted(error.to_string()),
        }
    }
}

fn marked(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().insert("grpc-accept-encoding", CODINGS);
    answer
}

/// Codes on which Vector drops the events become one on which it sends them again.
fn harmless(answer: Response<Body>) -> Response<Body> {
    let Some(status) = Status::from_header_map(answer.headers()) else {
        return answer;
    };
    let drops = matches!(
        status.code(),
        Code::NotFound
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated
            | Code::DataLoss
    );
    if !drops {
        return answer;
    }
    tracing::warn!(code = ?status.code(), why = status.message(), "a request of Vector's is refused");
    Status::resource_exhausted(status.message().to_owned()).into_http()
}
