//! Delivery against a server on loopback that does what a script says, byte by byte: every way an
//! attempt can go wrong, and what must come of it.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands, its helpers too")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use usercom_sink::config::BaseUrl;
use usercom_sink::config::sink::{Concurrency, RequestConfig};
use usercom_sink::deliver::{
    ApiReply, Attempts, AuthBreakerState, DeliveryObserver, Denial, Expects, HttpTransport,
    Idempotency, MAX_RESPONSE_BYTES, Method, NoopDeliveryObserver, PoisonPolicy, Request,
    SendError, Transport, TransportSettings,
};
use usercom_sink::sink::OnAuthFailure;

const KEY: &str = "sekret0123456789";

/// What the server does with one request.
#[derive(Clone)]
enum Step {
    /// Answers with this status line's rest, these headers and this body.
    Answer(u16, &'static str, Bytes),
    /// Waits until so many requests are there, then refuses them all for a second.
    RefuseTogether(Arc<Barrier>),
    /// Reads the request, then closes the connection.
    CutAfterReading,
    /// Closes the connection at once, without reading.
    CutBeforeReading,
    /// Sends half of the body it announced, then closes.
    HalfBody(u16),
    /// Sends something that is not HTTP.
    Garbage,
    /// Never answers.
    Hang,
}

fn answer(status: u16) -> Step {
    Step::Answer(status, "", Bytes::from_static(b"{}"))
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<(Instant, String)>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Seen {
    fn all(&self) -> Vec<(Instant, String)> {
        self.requests.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// A server that follows a script; its last step is repeated. Ends when dropped.
struct Server {
    base: String,
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = Arc::new(Mutex::new(steps.into_iter().collect::<VecDeque<_>>()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/api/public/", listener.local_addr().unwrap());
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&steps), Arc::clone(&shared)));
            }
        });
        Self { base, seen, _tasks: tasks }
    }
}

async fn serve(mut stream: TcpStream, steps: Arc<Mutex<VecDeque<Step>>>, seen: Arc<Seen>) {
    let next = || {
        let mut steps = steps.lock().unwrap();
        if steps.len() > 1 { steps.pop_front().unwrap() } else { steps[0].clone() }
    };
    loop {
        if matches!(steps.lock().unwrap().front(), Some(Step::CutBeforeReading)) {
            next();
            return;
        }
        let Some(text) = read_request(&mut stream).await else {
            return;
        };
        seen.requests.lock().unwrap().push((Instant::now(), text));
        let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(now, Ordering::SeqCst);
        let goes_on = act(&mut stream, next()).await;
        seen.now.fetch_sub(1, Ordering::SeqCst);
        if !goes_on {
            return;
        }
    }
}

/// Head and body of one request, or `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |text| text.parse::<usize>().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
}

/// Does one step; says whether the connection continues.
async fn act(stream: &mut TcpStream, step: Step) -> bool {
    match step {
        Step::Answer(status, headers, body) => {
            sleep(Duration::from_millis(5)).await;
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n");
            stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(&body).await.is_ok()
        }
        Step::RefuseTogether(barrier) => {
            barrier.wait().await;
            let text = "HTTP/1.1 429 X\r\ncontent-length: 0\r\nretry-after: 2\r\n\r\n";
            stream.write_all(text.as_bytes()).await.is_ok()
        }
        Step::HalfBody(status) => {
            let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 100\r\n\r\n{{\"half\":");
            drop(stream.write_all(text.as_bytes()).await);
            drop(stream.flush().await);
            false
        }
        Step::Garbage => {
            drop(stream.write_all(b"220 smtp.example ESMTP ready\r\n\r\n").await);
            false
        }
        Step::Hang => {
            sleep(Duration::from_secs(3600)).await;
            false
        }
        Step::CutAfterReading | Step::CutBeforeReading => false,
    }
}

/// No waiting between attempts, so that tests are quick; waits are tested in paused time.
fn config() -> RequestConfig {
    RequestConfig {
        concurrency: Concurrency::Fixed(4),
        retry_initial_backoff_secs: 0,
        ..RequestConfig::default()
    }
}

fn settings(base: &str, request: RequestConfig, halt: OnAuthFailure) -> TransportSettings {
    TransportSettings {
        sink: "crm".to_owned(),
        base_url: BaseUrl::parse(base).unwrap(),
        api_key: SecretString::from(KEY),
        request,
        halt,
        poison: PoisonPolicy::default(),
        key_check: None,
        route_closed: Duration::from_secs(300),
        cures: |_| "make a new key",
    }
}

fn transport(base: &str, request: RequestConfig) -> HttpTransport {
    let settings = settings(base, request, OnAuthFailure::Retry);
    HttpTransport::new(settings, Arc::new(NoopDeliveryObserver), CancellationToken::new()).unwrap()
}

fn request(method: Method, path: &str, idempotency: Idempotency) -> Request {
    let body = (method != Method::Get).then(|| Bytes::from_static(br#"{"name":"x"}"#));
    let expects = Expects::default();
    Request { method, path: path.to_owned(), route: "events/", body, idempotency, expects }
}

async fn send(
    transport: &HttpTransport,
    idempotency: Idempotency,
) -> (Result<ApiReply, SendError>, Attempts) {
    let mut attempts = Attempts::default();
    let request = request(Method::Post, "events/", idempotency);
    (transport.send(&request, &mut attempts).await, attempts)
}

/// Runs one request against a script and says what came of it and how many arrived.
async fn meet(
    steps: Vec<Step>,
    idempotency: Idempotency,
) -> (Result<ApiReply, SendError>, Attempts, usize) {
    let server = Server::start(steps).await;
    let (result, attempts) = send(&transport(&server.base, config()), idempotency).await;
    (result, attempts, server.seen.count())
}

#[tokio::test]
async fn request_has_expected_path_headers_and_body() {
    // Guarantees method, path, headers and body on the wire, byte for byte where it matters.
    let server = Server::start([answer(200)]).await;
    let transport = transport(&server.base, config());
    let path = "users-by-id/a%2Fb%3F%20%C3%A9/events/?x=%2B";
    let mut attempts = Attempts::default();
    let reply =
        transport.send(&request(Method::Put, path, Idempotency::Idempotent), &mut attempts).await;
    assert_eq!(reply.unwrap(), ApiReply { status: 200, body: Bytes::from_static(b"{}") });
    let text = server.seen.all()[0].1.clone();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next().unwrap(), format!("PUT /api/public/{path} HTTP/1.1"));
    let headers: Vec<String> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
        .collect();
    for header in [
        format!("authorization: Token {KEY}"),
        "accept: */*; version=2".to_owned(),
        "content-type: application/json".to_owned(),
        format!("user-agent: usercom-sink/{}", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(headers.contains(&header), "{header} not in {headers:?}");
    }
    assert_eq!(body, r#"{"name":"x"}"#);
}

#[tokio::test]
async fn path_that_normalisation_would_change_is_not_sent() {
    // Guarantees that an id of two dots cannot reach another endpoint: a final 400, nothing sent.
    let server = Server::start([answer(200)]).await;
    let transport = transport(&server.base, config());
    let mut attempts = Attempts::default();
    let climbing = request(Method::Post, "users-by-id/%2e%2E/events/", Idempotency::NonIdempotent);
    assert_eq!(transport.send(&climbing, &mut attempts).await.unwrap().status, 400);
    assert_eq!(server.seen.count(), 0);
}

#[tokio::test]
async fn transient_failure_is_retried() {
    // Guarantees that each retriable status leads to another attempt and then to the answer.
    for status in [408, 500, 502, 503, 504, 520] {
        let (result, attempts, arrived) =
            meet(vec![answer(status), answer(status), answer(201)], Idempotency::Idempotent).await;
        assert_eq!(result.unwrap().status, 201, "{status}");
        assert_eq!((attempts.sent, attempts.failed, arrived), (3, 0, 3), "{status}");
    }
}

#[tokio::test]
async fn final_status_is_not_retried() {
    // Guarantees that no other status is repeated, and that bodies arrive.
    for status in [200, 204, 400, 404, 405, 409, 410, 422, 501] {
        let body: &[u8] = match status {
            204 => b"",
            200 => b"{\"id\":1}",
            _ => b"{\"detail\":\"whatever\"}",
        };
        let body = Bytes::from_static(body);
        let step = Step::Answer(status, "", body.clone());
        let (result, attempts, arrived) = meet(vec![step], Idempotency::NonIdempotent).await;
        assert_eq!(result.unwrap(), ApiReply { status, body }, "{status}");
        assert_eq!((attempts.sent, arrived), (1, 1), "{status}");
    }
}

#[tokio::test]
async fn redirect_or_web_page_is_retried_and_not_followed() {
    // Guarantees that what is not the API's answer decides nothing, and that nothing, least of all
    // the key, goes where a redirect points.
    let elsewhere = Server::start([answer(200)]).await;
    let location = format!("location: {}\r\n", elsewhere.base);
    let location: &'static str = Box::leak(location.into_boxed_str());
    let page = Bytes::from_static(b"<html>Sign in</html>");
    for status in [301, 302, 303, 307, 308] {
        let steps = vec![Step::Answer(status, location, page.clone()), answer(201)];
        let (result, attempts, arrived) = meet(steps, Idempotency::Idempotent).await;
        assert_eq!(result.unwrap().status, 201, "{status}");
        assert_eq!((attempts.sent, arrived), (2, 2), "{status}");
    }
    let html = "content-type: text/html; charset=utf-8\r\n";
    for (status, headers, body) in [
        (200, html, &b"maintenance"[..]),
        (400, "", b"<html>"),
        (404, html, b"<!doctype html>"),
        (413, html, b"<html>"),
        (451, "", b" <html>"),
    ] {
        let steps = vec![Step::Answer(status, headers, Bytes::from_static(body)), answer(201)];
        let (result, ..) = meet(steps.clone(), Idempotency::Idempotent).await;
        assert_eq!(result.unwrap().status, 201, "{status}");
        let (result, ..) = meet(steps, Idempotency::NonIdempotent).await;
        assert!(matches!(result, Err(SendError::Ambiguous { .. })), "{status}: {result:?}");
    }
    assert_eq!(elsewhere.seen.count(), 0);
}

#[tokio::test]
async fn success_without_json_is_not_sent_again() {
    // Guarantees that an event answered `OK` is delivered once.
    for body in [&b"OK"[..], b"ok\n", b"created", b"\xef\xbb\xbf{\"id\":1}"] {
        let step = Step::Answer(200, "content-type: text/plain\r\n", Bytes::from_static(body));
        let (result, attempts, arrived) = meet(vec![step], Idempotency::NonIdempotent).await;
        assert_eq!(result.unwrap().status, 200);
        assert_eq!((attempts.sent, arrived), (1, 1));
    }
}

#[tokio::test]
async fn api_key_is_redacted_in_error_bodies() {
    // Guarantees that a server which repeats the key puts it into no dead letter and no log.
    let body = Bytes::from(format!("{{\"detail\":\"Invalid token {KEY}\"}}"));
    let (result, ..) = meet(vec![Step::Answer(400, "", body)], Idempotency::NonIdempotent).await;
    assert_eq!(result.unwrap().body, "{\"detail\":\"Invalid token ***\"}");
}

#[tokio::test]
async fn closed_idle_connection_is_retried_without_backoff() {
    // Guarantees that where the server closes a kept connection under a request, the next attempt
    // opens its own at once; what counts is returned for a look-up without a pause.
    let config =
        RequestConfig { retry_initial_backoff_secs: 60, retry_max_duration_secs: 60, ..config() };
    let begin = Instant::now();
    for idempotency in [Idempotency::Idempotent, Idempotency::NonIdempotent] {
        let steps = [answer(201), Step::CutAfterReading, answer(201)];
        let server = Server::start(steps).await;
        let transport = transport(&server.base, config.clone());
        assert_eq!(send(&transport, idempotency).await.0.unwrap().status, 201);
        let (result, attempts) = send(&transport, idempotency).await;
        match idempotency {
            Idempotency::Idempotent => assert_eq!(result.unwrap().status, 201),
            Idempotency::NonIdempotent => {
                assert!(matches!(result, Err(SendError::Ambiguous { .. })), "{result:?}");
            }
        }
        assert_eq!(attempts.failed, 0);
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn non_idempotent_request_with_unknown_effect_is_not_retried() {
    // Guarantees, for every way to lose an answer, exactly one arrival and an error that says so.
    for step in [Step::CutAfterReading, Step::Garbage, answer(500), answer(502), answer(504)] {
        let (result, attempts, arrived) =
            meet(vec![step, answer(200)], Idempotency::NonIdempotent).await;
        assert!(matches!(result, Err(SendError::Ambiguous { .. })), "{result:?}");
        assert_eq!((attempts.sent, attempts.failed, arrived), (1, 1, 1));
    }
}

#[tokio::test]
async fn denied_non_idempotent_request_is_returned_to_its_caller() {
    // Guarantees that an event that a server refuses for now is not sent again before its sender
    // could look whether it was carried out, and that it is told how the server refused it.
    for (status, expected) in [
        (408, Denial::Unavailable),
        (429, Denial::TooMany),
        (500, Denial::None),
        (503, Denial::Unavailable),
    ] {
        let (result, attempts, _) =
            meet(vec![answer(status), answer(201)], Idempotency::NonIdempotent).await;
        let Err(SendError::Ambiguous { denial, .. }) = result else { panic!("{result:?}") };
        assert_eq!((denial, attempts.sent), (expected, 1), "{status}");
    }
}

#[tokio::test]
async fn idempotent_request_is_always_retried() {
    // Guarantees that reads and upserts survive cut connections, half bodies and garbage.
    let steps = vec![
        Step::CutBeforeReading,
        Step::CutAfterReading,
        Step::Garbage,
        Step::HalfBody(200),
        answer(200),
    ];
    let (result, attempts, arrived) = meet(steps, Idempotency::Idempotent).await;
    assert_eq!(result.unwrap().status, 200);
    assert_eq!(arrived, 4);
    assert_eq!((attempts.sent, attempts.failed), (5, 0));
}

#[tokio::test]
async fn truncated_success_of_non_idempotent_request_is_accepted() {
    // Guarantees that an event whose 2xx lost its body is not sent twice, and that a cut 4xx is
    // still final.
    for status in [201, 400] {
        let steps = vec![Step::HalfBody(status), answer(200)];
        let (result, _, arrived) = meet(steps, Idempotency::NonIdempotent).await;
        assert_eq!(result.unwrap(), ApiReply { status, body: Bytes::new() });
        assert_eq!(arrived, 1);
    }
}

#[tokio::test]
async fn timeout_is_classified_by_idempotency() {
    // Guarantees that a server that hangs is tried again for what is safe, and reported for what
    // counts.
    let config = RequestConfig { timeout_secs: 1, ..config() };
    for idempotency in [Idempotency::Idempotent, Idempotency::NonIdempotent] {
        let server = Server::start([Step::Hang, answer(200)]).await;
        let (result, _) = send(&transport(&server.base, config.clone()), idempotency).await;
        match idempotency {
            Idempotency::Idempotent => assert_eq!(result.unwrap().status, 200),
            Idempotency::NonIdempotent => {
                let why = "no answer within the timeout".into();
                assert_eq!(result, Err(SendError::Ambiguous { why, denial: Denial::None }));
            }
        }
    }
}

#[tokio::test]
async fn unreachable_server_has_received_nothing() {
    // Guarantees that failures to connect are retriable even for what counts, and that the error
    // names neither key nor URL.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = RequestConfig { retry_attempts: 2, ..config() };
    let transport = transport(&format!("http://{address}/api/public/"), config);
    let (result, attempts) = send(&transport, Idempotency::NonIdempotent).await;
    let error = result.unwrap_err();
    assert!(matches!(error, SendError::GivenUp { attempts: 3, .. }), "{error:?}");
    assert_eq!((attempts.sent, attempts.failed), (3, 0));
    let text = format!("{error} {error:?} {transport:?}");
    assert!(text.contains("no connection"), "{text}");
    assert!(!text.contains(KEY) && !text.contains("events/"), "{text}");
}

#[tokio::test]
async fn response_body_is_read_up_to_its_limit() {
    // Guarantees that an endless reply cannot fill the memory: a success is as one whose body was
    // cut, a refusal keeps its beginning.
    let body = Bytes::from(vec![b'1'; 3 * MAX_RESPONSE_BYTES]);
    let steps = |status| vec![Step::Answer(status, "", body.clone()), answer(202)];
    let (result, attempts, _) = meet(steps(200), Idempotency::Idempotent).await;
    assert_eq!((result.unwrap().status, attempts.sent), (202, 2));
    let (result, attempts, _) = meet(steps(200), Idempotency::NonIdempotent).await;
    assert_eq!(result.unwrap(), ApiReply { status: 200, body: Bytes::new() });
    assert_eq!(attempts.sent, 1);
    let (result, ..) = meet(steps(400), Idempotency::Idempotent).await;
    assert_eq!(result.unwrap().body.len(), MAX_RESPONSE_BYTES);
}

#[derive(Default)]
struct Count {
    paused: AtomicU64,
    sent: AtomicU64,
    retried: AtomicU64,
    halted: Mutex<Vec<bool>>,
}

impl DeliveryObserver for Count {
    fn request_sent(&self, _method: Method, _route: &'static str) {
        self.sent.fetch_add(1, Ordering::SeqCst);
    }
    fn retry(&self, _reason: &'static str) {
        self.retried.fetch_add(1, Ordering::SeqCst);
    }
    fn paused(&self, _length: Duration) {
        self.paused.fetch_add(1, Ordering::SeqCst);
    }
    fn halted(&self, halted: bool) {
        self.halted.lock().unwrap().push(halted);
    }
}

#[tokio::test]
async fn retry_after_pauses_the_sink_once() {
    // Guarantees that after a 429 nothing arrives, from anyone, until its Retry-After is over.
    let refusals = std::iter::repeat_n(Step::RefuseTogether(Arc::new(Barrier::new(4))), 4);
    let server = Server::start(refusals.chain([answer(200)])).await;
    let probe = Arc::new(Count::default());
    let settings = settings(&server.base, config(), OnAuthFailure::Retry);
    let shared: Arc<dyn DeliveryObserver> = Arc::<Count>::clone(&probe);
    let transport = HttpTransport::new(settings, shared, CancellationToken::new());
    let transport = Arc::new(transport.unwrap());
    let mut tasks = JoinSet::new();
    for _ in 0..12 {
        let transport = Arc::clone(&transport);
        tasks.spawn(async move { send(&transport, Idempotency::Idempotent).await.0 });
    }
    while let Some(result) = tasks.join_next().await {
        assert_eq!(result.unwrap().unwrap().status, 200);
    }
    let times: Vec<Instant> = server.seen.all().into_iter().map(|(at, _)| at).collect();
    assert_eq!(times.len(), 16);
    assert!(times[4] - times[3] >= Duration::from_millis(1_900), "{:?}", times[4] - times[3]);
    assert_eq!(probe.paused.load(Ordering::SeqCst), 1);
    assert_eq!(probe.retried.load(Ordering::SeqCst), 4);
    assert_eq!(probe.sent.load(Ordering::SeqCst), 16);
}

#[tokio::test]
async fn refused_key_halts_and_accepted_key_resumes() {
    // Guarantees that 401 drops nothing, shows in the watch, and that the prober's success lets
    // everyone continue.
    let server = Server::start([answer(401), answer(403), answer(200)]).await;
    let probe = Arc::new(Count::default());
    let one = RequestConfig { concurrency: Concurrency::Fixed(1), ..config() };
    let settings = settings(&server.base, one, OnAuthFailure::Retry);
    let shared: Arc<dyn DeliveryObserver> = Arc::<Count>::clone(&probe);
    let transport = HttpTransport::new(settings, shared, CancellationToken::new());
    let transport = Arc::new(transport.unwrap());
    let halted = transport.halted();
    let mut tasks = JoinSet::new();
    for _ in 0..6 {
        let transport = Arc::clone(&transport);
        tasks.spawn(async move { send(&transport, Idempotency::NonIdempotent).await.0 });
    }
    while let Some(result) = tasks.join_next().await {
        assert_eq!(result.unwrap().unwrap().status, 200);
    }
    assert!(halted.has_changed().unwrap());
    assert_eq!(*halted.borrow(), AuthBreakerState::Clear);
    let times: Vec<Instant> = server.seen.all().into_iter().map(|(at, _)| at).collect();
    assert_eq!(times.len(), 8);
    assert!(times[1] - times[0] >= Duration::from_millis(950));
    assert!(times[2] - times[1] >= Duration::from_millis(1950));
    assert_eq!(*probe.halted.lock().unwrap(), [true, false]);
}

#[tokio::test]
async fn once_run_reports_the_refused_key() {
    // Guarantees Refused after one confirmation, for the present caller and for every later one.
    let server = Server::start([answer(401)]).await;
    let settings = settings(&server.base, config(), OnAuthFailure::Abort);
    let transport =
        HttpTransport::new(settings, Arc::new(NoopDeliveryObserver), CancellationToken::new())
            .unwrap();
    for _ in 0..2 {
        let (result, _) = send(&transport, Idempotency::Idempotent).await;
        assert_eq!(result, Err(SendError::Refused { status: 401 }));
    }
    assert_eq!(server.seen.count(), 2);
}

#[tokio::test]
async fn stop_does_not_wait_for_an_accepted_key() {
    // Guarantees that a halted sink can be stopped.
    let server = Server::start([answer(403)]).await;
    let stop = CancellationToken::new();
    let settings = settings(&server.base, config(), OnAuthFailure::Retry);
    let transport =
        HttpTransport::new(settings, Arc::new(NoopDeliveryObserver), stop.clone()).unwrap();
    let mut halted = transport.halted();
    let cancel = async {
        halted.wait_for(|state| *state != AuthBreakerState::Clear).await.unwrap();
        stop.cancel();
    };
    let ((result, _), ()) = tokio::join!(send(&transport, Idempotency::Idempotent), cancel);
    assert_eq!(result, Err(SendError::Stopped));
}

#[tokio::test]
async fn fixed_concurrency_is_never_exceeded() {
    // Guarantees that no more than the number set are on the wire, seen from the server.
    let server = Server::start([answer(200)]).await;
    let config = RequestConfig { concurrency: Concurrency::Fixed(3), ..config() };
    let transport = Arc::new(transport(&server.base, config));
    let mut tasks = JoinSet::new();
    for _ in 0..40 {
        let transport = Arc::clone(&transport);
        tasks.spawn(async move { send(&transport, Idempotency::NonIdempotent).await.0 });
    }
    while let Some(result) = tasks.join_next().await {
        assert_eq!(result.unwrap().unwrap().status, 200);
    }
    assert_eq!(server.seen.count(), 40);
    assert!((2..=3).contains(&server.seen.most.load(Ordering::SeqCst)));
}
