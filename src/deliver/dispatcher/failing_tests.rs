//! Requests that fail for reasons of their own, through the dispatcher, under a paused clock:
//! poison, an outage, and a route that is forbidden.

use super::*;
use crate::config::sink::Concurrency;
use crate::deliver::outcome::Media;
use crate::deliver::poison::RunMode;
use crate::deliver::request::{Expects, Idempotency, Method};
use crate::deliver::transport::Transport;
use tokio::task::JoinSet;

/// Answers by path.
struct ByPath<F>(F, Mutex<Vec<String>>);

#[async_trait]
impl<F: Fn(&str) -> u16 + Send + Sync> AttemptTransport for Arc<ByPath<F>> {
    async fn attempt(&self, request: &Request, _connection: ConnectionChoice) -> Attempt {
        self.1.lock().push(request.path.clone());
        sleep(Duration::from_millis(20)).await;
        Attempt::Answer {
            status: (self.0)(&request.path),
            retry_after: None,
            limits: RateLimitHeaders::default(),
            media: Media::Other,
            body: Ok(Bytes::from_static(b"{}")),
        }
    }
}

fn request(route: &'static str, path: &str, need: Need) -> Request {
    Request {
        method: Method::Post,
        path: path.into(),
        route,
        body: None,
        idempotency: Idempotency::Idempotent,
        expects: Expects { need, ..Expects::default() },
    }
}

type ByPathDispatcher<F> = Arc<RequestDispatcher<Arc<ByPath<F>>>>;

fn make<F: Fn(&str) -> u16 + Send + Sync>(answers: F) -> (ByPathDispatcher<F>, Arc<ByPath<F>>) {
    let wire = Arc::new(ByPath(answers, Mutex::default()));
    let config = RequestConfig { concurrency: Concurrency::Fixed(8), ..RequestConfig::default() };
    let settings = DispatcherSettings {
        sink: "crm",
        request: &config,
        halt: OnAuthFailure::Retry,
        poison: PoisonPolicy {
            attempts: 10,
            least: Duration::from_secs(600),
            run: RunMode::Service,
        },
        key_check: Some(request("check/", "check", Need::FirstContact)),
        route_closed: Duration::from_secs(300),
        cures: |_| "allow it",
        observer: Arc::new(crate::deliver::NoopDeliveryObserver),
        stop: CancellationToken::new(),
    };
    (Arc::new(RequestDispatcher::new(Arc::clone(&wire), settings)), wire)
}

async fn send<W: AttemptTransport>(
    dispatcher: &RequestDispatcher<W>,
    route: &'static str,
    path: &str,
) -> Result<ApiReply, SendError> {
    let mut attempts = Attempts::default();
    dispatcher.send(&request(route, path, Need::Required), &mut attempts).await
}

#[tokio::test(start_paused = true)]
async fn poisoned_request_is_given_up_only_while_others_succeed() {
    // Guarantees that a request which fails among others that succeed ends as poison after ten
    // failures and ten minutes, that an outage of an hour ends nothing, and that a poisoned request
    // is found after it as before.
    let begin = Instant::now();
    let hour = Duration::from_secs(3600);
    let (dispatcher, _) = make(move |path| {
        let out = (hour..hour * 2).contains(&begin.elapsed());
        if out || path == "poison" { 500 } else { 200 }
    });
    let others = async {
        loop {
            send(&dispatcher, "r/", "fine").await.unwrap();
            sleep(Duration::from_secs(5)).await;
        }
    };
    let poisoned = async {
        let error = send(&dispatcher, "r/", "poison").await.unwrap_err();
        assert!(matches!(error, SendError::Poison { failures: 10.., .. }), "{error:?}");
        let took = begin.elapsed();
        assert!((Duration::from_secs(600)..Duration::from_secs(800)).contains(&took), "{took:?}");
        // Into the outage: forty requests that are all right, and one that is not.
        sleep(hour + Duration::from_secs(5) - begin.elapsed()).await;
        let mut waiting = JoinSet::new();
        for n in 0..40 {
            let dispatcher = Arc::clone(&dispatcher);
            waiting.spawn(async move { send(&dispatcher, "r/", &n.to_string()).await });
        }
        let error = send(&dispatcher, "r/", "poison").await.unwrap_err();
        assert!(matches!(error, SendError::Poison { .. }), "{error:?}");
        assert!(begin.elapsed() > hour * 2);
        while let Some(done) = waiting.join_next().await {
            assert_eq!(done.unwrap().unwrap().status, 200);
        }
    };
    tokio::select! {
        () = others => unreachable!("it never ends"),
        () = poisoned => {}
    }
}

#[tokio::test(start_paused = true)]
async fn probe_distinguishes_poisoned_request_from_outage() {
    // Guarantees that without other traffic the cheap request decides: a server that answers it has
    // a poisoned request, one that does not is down.
    for is_up in [true, false] {
        let done = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&done);
        let (dispatcher, _) = make(move |path| match path {
            "first" => 200,
            "check" if is_up => 200,
            "check" => 503,
            _ => {
                counted.fetch_add(1, Ordering::SeqCst);
                500
            }
        });
        send(&dispatcher, "r/", "first").await.unwrap();
        let lone = send(&dispatcher, "r/", "poison");
        let result = tokio::time::timeout(Duration::from_secs(7200), lone).await;
        match is_up {
            true => assert!(matches!(result, Ok(Err(SendError::Poison { .. }))), "{result:?}"),
            false => assert!(result.is_err(), "{result:?}"),
        }
        assert!(done.load(Ordering::SeqCst) >= 10);
    }
}

#[tokio::test(start_paused = true)]
async fn forbidden_route_is_closed_and_others_stay_open() {
    // Guarantees that a 403 with a good key leaves other routes open, that few attempts are made at
    // the closed one, and that its requests end after `route_closed_secs`.
    let begin = Instant::now();
    let (dispatcher, wire) = make(|path| if path.starts_with("bad") { 403 } else { 200 });
    let mut bad = JoinSet::new();
    for n in 0..50 {
        let dispatcher = Arc::clone(&dispatcher);
        bad.spawn(async move { send(&dispatcher, "events/", &format!("bad{n}")).await });
    }
    for n in 0..50 {
        send(&dispatcher, "users/", &format!("good{n}")).await.unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(*dispatcher.halted().borrow(), AuthBreakerState::Clear);
    while let Some(result) = bad.join_next().await {
        let error = result.unwrap().unwrap_err();
        assert!(matches!(error, SendError::RouteClosed { status: 403, .. }), "{error:?}");
    }
    assert!(begin.elapsed() >= Duration::from_secs(300));
    let tried = wire.1.lock().iter().filter(|path| path.starts_with("bad")).count();
    assert!(tried <= 30, "{tried}");
}

#[tokio::test(start_paused = true)]
async fn forbidden_optional_request_is_returned_to_its_caller() {
    // Guarantees that a forbidden look-up neither waits nor halts.
    let (dispatcher, _) = make(|path| if path == "look" { 403 } else { 200 });
    let mut attempts = Attempts::default();
    let look = request("look/", "look", Need::Optional);
    assert_eq!(dispatcher.send(&look, &mut attempts).await.unwrap().status, 403);
    assert_eq!(send(&dispatcher, "r/", "fine").await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn key_refused_on_every_route_halts_delivery() {
    // Guarantees that a 403 with a key that is not valid for anything stops all, and that a valid
    // one is noticed.
    let begin = Instant::now();
    let (dispatcher, wire) = make(move |_| match begin.elapsed() < Duration::from_secs(20) {
        true => 403,
        false => 200,
    });
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let dispatcher = Arc::clone(&dispatcher);
        tasks.spawn(async move { send(&dispatcher, "r/", &n.to_string()).await });
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(*dispatcher.halted().borrow(), AuthBreakerState::Halted { status: 403 });
    while let Some(result) = tasks.join_next().await {
        assert_eq!(result.unwrap().unwrap().status, 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    let during = wire.1.lock().len();
    assert!(during < 60, "{during}");
}
