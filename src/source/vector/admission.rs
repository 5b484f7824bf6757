//! Admits requests: how many are decoded at once and for how long, how much memory they may hold,
//! and which status codes are returned.
//!
//! # Invariants
//!
//! A push is never answered with a code on which Vector drops the events. All connections and their
//! requests share one memory budget.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service as _;

use super::connection::{ActiveCall, ActivePush, GrpcConnection};
use super::order::OrderTicket;
use super::request::{Framed, MAX_EVENTS, PushError, records};
use super::unwanted::UnwantedEvents;
use crate::record::{AckOn, Record};
use crate::source::memory::{MemoryBudget, MemoryReservation};
use crate::telemetry::SourceMetrics;

/// Requests that are decoded at once.
const MAX_UNPACKING: usize = 2;

/// How long a request waits for its first memory reservation, and to be decoded.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);

/// The least memory that all requests together may hold, in bytes.
const MIN_BUDGET_BYTES: usize = 256 << 20;

const PUSH_PATH: &str = "/vector.Vector/PushEvents";
const ENCODING_HEADER: &str = "grpc-encoding";
const ACCEPTED_CODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,zstd");

/// A decoded push, on its way from admission to the service.
pub(super) struct UnpackedRequest {
    pub(super) records: Vec<Record>,
    /// The memory that the records take.
    pub(super) reservation: MemoryReservation,
    /// The position of the request in the order of its connection.
    pub(super) ticket: OrderTicket,
}

/// A slot from which the service takes the decoded request once.
#[derive(Clone)]
pub(super) struct RequestSlot(Arc<Mutex<Option<UnpackedRequest>>>);

impl RequestSlot {
    fn new(unpacked: UnpackedRequest) -> Self {
        Self(Arc::new(Mutex::new(Some(unpacked))))
    }

    pub(super) fn take(&self) -> Option<UnpackedRequest> {
        self.0.lock().take()
    }
}

/// What admission needs.
pub(super) struct AdmissionSettings {
    pub(super) source: String,
    /// The largest request, in bytes, compressed or not.
    pub(super) largest: usize,
    /// How long a request may take to arrive.
    pub(super) read_timeout: Duration,
    pub(super) ack_on: AckOn,
    pub(super) metrics: Option<SourceMetrics>,
    pub(super) unwanted: Arc<UnwantedEvents>,
    pub(super) tasks: TaskTracker,
}

struct AdmissionState {
    settings: AdmissionSettings,
    budget: MemoryBudget,
    readers: Semaphore,
    /// Whether it was logged that a client sends concurrently.
    concurrency_reported: AtomicBool,
}

/// The services behind admission.
#[derive(Clone)]
pub(super) struct AdmissionService {
    inner: Routes,
    shared: Arc<AdmissionState>,
}

/// The response to a call.
pub(super) type CallFuture =
    Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl AdmissionService {
    pub(super) fn new(settings: AdmissionSettings, inner: Routes) -> Self {
        // The largest request is held as it arrived, decompressed or as JSON, and once more while
        // the text grows.
        let budget = MemoryBudget::new(
            MIN_BUDGET_BYTES.max(settings.largest.saturating_mul(3) + MIN_BUDGET_BYTES / 8),
        );
        let readers = Semaphore::new(MAX_UNPACKING);
        let concurrency_reported = AtomicBool::new(false);
        let shared = AdmissionState { settings, budget, readers, concurrency_reported };
        Self { inner, shared: Arc::new(shared) }
    }

    /// Answers a call. Calls of one connection are made in the order of their arrival, so a push
    /// has its position in that order before this returns.
    pub(super) fn call(
        &self,
        connection: &Arc<GrpcConnection>,
        request: Request<Body>,
    ) -> CallFuture {
        let active_call = connection.call();
        let (mut inner, shared) = (self.inner.clone(), Arc::clone(&self.shared));
        if request.uri().path() == PUSH_PATH {
            let (ticket, under_way, others) = connection.push();
            if others {
                shared.report_concurrency(connection);
            }
            let connection = Arc::clone(connection);
            let push =
                PushCall { shared, connection, ticket, _under_way: under_way, _visit: active_call };
            return Box::pin(push.answer(inner, request));
        }
        Box::pin(async move {
            let _visit = active_call;
            match timeout(shared.settings.read_timeout, inner.call(request)).await {
                Ok(answer) => answer,
                Err(_) => Ok(Status::deadline_exceeded("it came too slowly").into_http()),
            }
        })
    }
}

impl AdmissionState {
    fn report_concurrency(&self, connection: &GrpcConnection) {
        if self.concurrency_reported.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::warn!(
            source = self.settings.source,
            client = %connection.peer,
            "a client sends several requests at once: each is processed whole and in the order of \
             its arrival, but Vector itself may send events in another order than it read them; \
             where the order of a user's events matters, set `request.concurrency = \"none\"` in \
             Vector's sink (logged once)"
        );
    }
}

/// A push before its admission.
struct PushCall {
    shared: Arc<AdmissionState>,
    connection: Arc<GrpcConnection>,
    ticket: OrderTicket,
    _under_way: ActivePush,
    _visit: ActiveCall,
}

impl PushCall {
    async fn answer(
        self,
        mut inner: Routes,
        request: Request<Body>,
    ) -> Result<Response<Body>, Infallible> {
        let (mut head, body) = request.into_parts();
        let encoding = head.headers.remove(ENCODING_HEADER);
        let encoding = encoding.as_ref().and_then(|value| value.to_str().ok());
        let (records, reservation) = match self.unpack(body, encoding).await {
            Ok(unpacked) => unpacked,
            Err(status) => return Ok(marked(status.into_http())),
        };
        let unpacked = UnpackedRequest { records, reservation, ticket: self.ticket };
        head.extensions.insert(RequestSlot::new(unpacked));
        // The service receives an empty message: a flag and a length of 0.
        let body = Body::new(Full::new(Bytes::from_static(&[0; 5])));
        let answer = inner.call(Request::from_parts(head, body)).await?;
        Ok(marked(make_retryable(answer)))
    }

    async fn unpack(
        &self,
        body: Body,
        encoding: Option<&str>,
    ) -> Result<(Vec<Record>, MemoryReservation), Status> {
        let settings = &self.shared.settings;
        let entered = self.shared.budget.reserve(ADMISSION_TIMEOUT).await;
        let mut reservation = entered.map_err(|no_room| self.refused(no_room.into()))?;
        let arriving = Framed::read(body, settings.largest, &mut reservation);
        let framed = match timeout(settings.read_timeout, arriving).await {
            Ok(framed) => framed.map_err(|error| self.refused(error))?,
            Err(_) => return Err(Status::deadline_exceeded("the request came too slowly")),
        };
        let Ok(Ok(_reader)) = timeout(ADMISSION_TIMEOUT, self.shared.readers.acquire()).await
        else {
            return Err(Status::resource_exhausted("too many requests at once"));
        };
        let inflated = framed.inflated(encoding, settings.largest, &mut reservation).await;
        let message = inflated.map_err(|error| self.refused(error))?;
        let (unwanted, ack_on) = (Arc::clone(&settings.unwanted), settings.ack_on);
        // Decoding may take long, and other connections need this thread.
        let unpacking = settings.tasks.spawn_blocking(move || {
            let size = message.len();
            let found = records(&message, &mut reservation, &unwanted, ack_on);
            drop(message);
            reservation.shrink(size);
            (found, reservation)
        });
        match unpacking.await {
            Ok((Ok(records), reservation)) => Ok((records, reservation)),
            Ok((Err(error), _)) => Err(self.refused(error)),
            Err(_) => Err(Status::internal("the request was not unpacked")),
        }
    }

    /// Logs why a request is refused and returns the status on which Vector sends it again.
    fn refused(&self, error: PushError) -> Status {
        let settings = &self.shared.settings;
        let (source, client) = (&settings.source, self.connection.peer);
        if let Some(metrics) = &settings.metrics {
            metrics.refused(error.kind());
        }
        match error {
            PushError::TooLarge { .. } | PushError::InflatesTooLarge { .. } => {
                let limit = settings.largest;
                let size = error.size();
                tracing::warn!(
                    source, %client, size, limit,
                    "a request is larger than `max_message_bytes` and was refused; Vector repeats \
                     it without end and sends nothing after it: lower `batch.max_events` of \
                     Vector's sink, or raise `max_message_bytes` here"
                );
            }
            PushError::TooMany => tracing::warn!(
                source, %client, limit = MAX_EVENTS,
                "a request has too many events and was refused; Vector repeats it without end and \
                 sends nothing after it: lower `batch.max_events` of Vector's sink"
            ),
            PushError::OutOfMemoryBudget(_) => tracing::warn!(
                source, %client,
                "a request was refused because the memory budget is used up, and Vector sends it \
                 again; the cause is many large requests at once, or one with very many small \
                 values. Lower `batch.max_events` or `request.concurrency` of Vector's sink if \
                 this continues"
            ),
            PushError::UnknownCompression => tracing::warn!(
                source, %client,
                "a request has an unknown compression and was refused: set `compression` of \
                 Vector's sink to \"gzip\", \"zstd\" or \"none\""
            ),
            PushError::Torn => tracing::debug!(source, %client, "a request ended early"),
            PushError::Broken | PushError::Malformed(_) => tracing::warn!(
                source, %client, %error,
                "a request cannot be decoded and was refused; Vector would repeat it without end: \
                 check whether another program sends to this port, or a proxy damages requests"
            ),
        }
        match error {
            PushError::Torn => Status::unavailable(error.to_string()),
            PushError::Malformed(_) | PushError::Broken => Status::internal(error.to_string()),
            _ => Status::resource_exhausted(error.to_string()),
        }
    }
}

fn marked(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().insert("grpc-accept-encoding", ACCEPTED_CODINGS);
    answer
}

/// Replaces codes on which Vector drops the events by one on which it sends them again.
fn make_retryable(answer: Response<Body>) -> Response<Body> {
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
    tracing::warn!(code = ?status.code(), why = status.message(), "a request of Vector was refused; Vector sends it again");
    Status::resource_exhausted(status.message().to_owned()).into_http()
}
