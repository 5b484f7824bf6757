//! The door of the server: how many requests are read at once and for how long, and which codes
//! leave.
//!
//! A request first comes in whole; those that are large share a bounded memory for it, so that
//! neither many nor slow ones take more. Then it is unpacked, and in memory several times over, so
//! only a few are unpacked side by side. Invariant: no answer to a push has a code on which Vector
//! drops the events.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

/// Requests unpacked at once.
const READERS: usize = 2;

/// How long a request waits to be unpacked.
const PATIENCE: Duration = Duration::from_secs(10);

/// What every request may hold while it comes in, in bytes: enough for most batches.
const SMALL: usize = 256 << 10;

/// What all requests together may hold beyond that, in KiB: 256 MiB, and at least one request.
const LARGE_KIB: usize = 256 << 10;

const PUSH: &str = "/vector.Vector/PushEvents";
const CODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,zstd");

/// A request's turn to be unpacked; it ends when the request has been read.
#[derive(Clone)]
pub(super) struct Turn(Arc<TurnState>);

struct TurnState {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Turn {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        let permit = Mutex::new(Some(permit));
        Self(Arc::new(TurnState { permit }))
    }

    /// The request has been read.
    pub(super) fn done(&self) {
        drop(self.0.permit.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Puts the door before a service.
#[derive(Clone)]
pub(super) struct DoorLayer {
    readers: Arc<Semaphore>,
    large: Arc<Semaphore>,
    largest: usize,
    read_timeout: Duration,
}

impl DoorLayer {
    /// For requests of at most so many bytes, packed or not.
    pub(super) fn new(largest: usize, read_timeout: Duration) -> Self {
        let large = Arc::new(Semaphore::new(LARGE_KIB.max(largest >> 10)));
        Self { readers: Arc::new(Semaphore::new(READERS)), large, largest, read_timeout }
    }
}

impl<S> Layer<S> for DoorLayer {
    type Service = Door<S>;

    fn layer(&self, inner: S) -> Door<S> {
        Door { inner, layer: self.clone() }
    }
}

/// A service behind the door.
#[derive(Clone)]
pub(super) struct Door<S> {
    inner: S,
    layer: DoorLayer,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Door<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was polled ready is the one that is called.
        let fresh = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, fresh);
        if request.uri().path() == PUSH {
            Box::pin(push(inner, self.layer.clone(), request))
        } else {
            let mut inner = inner;
            Box::pin(inner.call(request))
        }
    }
}

async fn push<S>(
    mut inner: S,
    layer: DoorLayer,
    request: Request<Body>,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    let refused = |status: Status| Ok(marked(status.into_http()));
    let (head, body) = request.into_parts();
    let mut held = Vec::new();
    let arriving = whole(body, &layer, &mut held);
    let body = match timeout(layer.read_timeout, arriving).await {
        Ok(Ok(body)) => body,
        Ok(Err(status)) => return refused(status),
        Err(_) => return refused(Status::deadline_exceeded("the request came too slowly")),
    };
    let readers = Arc::clone(&layer.readers);
    let Ok(Ok(permit)) = timeout(PATIENCE, readers.acquire_owned()).await else {
        return refused(Status::resource_exhausted("too many requests at once"));
    };
    let turn = Turn::new(permit);
    let mut request = Request::from_parts(head, Body::new(Full::new(body)));
    request.extensions_mut().insert(turn.clone());
    let answer = inner.call(request).await?;
    turn.done();
    Ok(marked(harmless(answer)))
}

/// A body as a whole. What it holds of the memory for large ones is `held` until it is dropped.
async fn whole<'a>(
    mut body: Body,
    layer: &'a DoorLayer,
    held: &mut Vec<SemaphorePermit<'a>>,
) -> Result<Bytes, Status> {
    let mut bytes = BytesMut::new();
    let mut paid = SMALL;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Status::unavailable("the request ended early"))?;
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        let size = bytes.len() + chunk.len();
        // The head of a message is five bytes.
        if size > layer.largest.saturating_add(5) {
            return Err(Status::resource_exhausted("the request is larger than max_message_bytes"));
        }
        if size > paid {
            let kib = u32::try_from((size - paid).div_ceil(1024)).unwrap_or(u32::MAX);
            let room = layer.large.acquire_many(kib).await;
            held.push(room.map_err(|_| Status::unavailable("going away"))?);
            paid += kib as usize * 1024;
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
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
