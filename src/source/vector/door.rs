//! The door of the server: how many requests are read at once and for how long, and which codes
//! leave.
//!
//! A request is in memory twice while it is read, as it came and as messages, so only a few are
//! read side by side. Invariant: no answer to a push has a code on which Vector drops the events.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

/// Requests read at once.
const READERS: usize = 2;

/// How long a request waits to be read.
const PATIENCE: Duration = Duration::from_secs(10);

const PUSH: &str = "/vector.Vector/PushEvents";
const CODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,zstd");

/// A request's turn to be read; it ends when the request has been read.
#[derive(Clone)]
pub(super) struct Turn(Arc<TurnState>);

struct TurnState {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    done: AtomicBool,
}

impl Turn {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        let permit = Mutex::new(Some(permit));
        Self(Arc::new(TurnState { permit, done: AtomicBool::new(false) }))
    }

    /// The request has been read.
    pub(super) fn done(&self) {
        self.0.done.store(true, Ordering::Release);
        drop(self.0.permit.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn is_done(&self) -> bool {
        self.0.done.load(Ordering::Acquire)
    }
}

/// Puts the door before a service.
#[derive(Clone)]
pub(super) struct DoorLayer {
    readers: Arc<Semaphore>,
    read_timeout: Duration,
}

impl DoorLayer {
    pub(super) fn new(read_timeout: Duration) -> Self {
        Self { readers: Arc::new(Semaphore::new(READERS)), read_timeout }
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
    mut request: Request<Body>,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    let Ok(Ok(permit)) = timeout(PATIENCE, layer.readers.acquire_owned()).await else {
        return Ok(marked(Status::resource_exhausted("too many requests at once").into_http()));
    };
    let turn = Turn::new(permit);
    request.extensions_mut().insert(turn.clone());
    let late = async {
        sleep(layer.read_timeout).await;
        if turn.is_done() {
            // It was read; how long its events take is another matter.
            std::future::pending::<()>().await;
        }
    };
    let answer = tokio::select! {
        answer = inner.call(request) => answer?,
        () = late => Status::deadline_exceeded("the request came too slowly").into_http(),
    };
    turn.done();
    Ok(marked(harmless(answer)))
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
