//! The dispatcher under a paused clock, over transports that are functions.

use super::*;
use crate::config::sink::{Concurrency, ConcurrencyMode};
use crate::deliver::outcome::Media;
use crate::deliver::request::{Expects, Idempotency, Method};
use crate::deliver::transport::Transport;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU32;
use tokio::task::{JoinSet, yield_now};

/// Answers by a script, the last entry for ever, each after the same time.
struct Script {
    latency: Duration,
    steps: Mutex<VecDeque<Attempt>>,
    seen: Mutex<Vec<(Instant, String)>>,
}

#[async_trait]
impl AttemptTransport for Arc<Script> {
    async fn attempt(&self, request: &Request, _connection: ConnectionChoice) -> Attempt {
        self.seen.lock().push((Instant::now(), request.path.clone()));
        sleep(self.latency).await;
        let mut steps = self.steps.lock();
        if steps.len() > 1 { steps.pop_front().unwrap() } else { steps[0].clone() }
    }
}

fn script(steps: impl IntoIterator<Item = Attempt>) -> Arc<Script> {
    Arc::new(Script {
        latency: Duration::from_millis(50),
        steps: Mutex::new(steps.into_iter().collect()),
        seen: Mutex::default(),
    })
}

fn answer(status: u16, retry_after: Option<&str>) -> Attempt {
    Attempt::Answer {
        status,
        retry_after: retry_after.map(str::to_owned),
        limits: RateLimitHeaders::default(),
        media: Media::Other,
        body: Ok(Bytes::from_static(b"{}")),
    }
}

fn request(path: &str, idempotency: Idempotency) -> Request {
    Request {
        method: Method::Post,
        path: path.into(),
        route: "r/",
        body: None,
        idempotency,
        expects: Expects::default(),
    }
}

struct TestDispatcher<W> {
    dispatcher: Arc<RequestDispatcher<W>>,
    stop: CancellationToken,
}

fn make<W: AttemptTransport>(
    wire: W,
    config: &RequestConfig,
    halt: OnAuthFailure,
) -> TestDispatcher<W> {
    let stop = CancellationToken::new();
    let settings = DispatcherSettings {
        sink: "crm",
        request: config,
        halt,
        poison: PoisonPolicy::default(),
        key_check: None,
        route_closed: Duration::from_secs(300),
        cures: |_| "renew it",
        observer: Arc::new(crate::deliver::NoopDeliveryObserver),
        stop: stop.clone(),
    };
    TestDispatcher { dispatcher: Arc::new(RequestDispatcher::new(wire, settings)), stop }
}

fn fixed(n: u16) -> RequestConfig {
    RequestConfig { concurrency: Concurrency::Fixed(n), ..RequestConfig::default() }
}

async fn send<W: AttemptTransport>(
    dispatcher: &RequestDispatcher<W>,
    path: &str,
    idempotency: Idempotency,
) -> (Result<ApiReply, SendError>, Attempts) {
    let mut attempts = Attempts::default();
    let result = dispatcher.send(&request(path, idempotency), &mut attempts).await;
    (result, attempts)
}

#[tokio::test(start_paused = true)]
async fn request_is_retried_until_a_final_answer() {
    // Guarantees that every kind of failure is survived, each attempt is counted, and `failed`
    // starts again for the next request.
    let wire = script([
        Attempt::NotSent { detail: "refused".into() },
        answer(500, None),
        Attempt::TimedOut,
        answer(429, None),
        answer(503, Some("2")),
        answer(201, None),
    ]);
    let made = make(Arc::clone(&wire), &fixed(1), OnAuthFailure::Retry);
    let (result, attempts) = send(&made.dispatcher, "a", Idempotency::Idempotent).await;
    assert_eq!(result.unwrap().status, 201);
    assert_eq!((attempts.sent, attempts.failed), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn request_with_unknown_effect_is_returned_to_its_caller() {
    // Guarantees that a request that counts is sent once after a timeout, and is not started at
    // all once its repeats are used up.
    let wire = script([Attempt::TimedOut]);
    let config = RequestConfig { retry_attempts: 1, ..fixed(1) };
    let made = make(Arc::clone(&wire), &config, OnAuthFailure::Retry);
    let mut attempts = Attempts::default();
    let counts = request("a", Idempotency::NonIdempotent);
    for n in 1..=2 {
        let error = made.dispatcher.send(&counts, &mut attempts).await.unwrap_err();
        assert!(matches!(error, SendError::Ambiguous { .. }), "{error}");
        assert_eq!((attempts.sent, attempts.failed), (n, n));
    }
    let error = made.dispatcher.send(&counts, &mut attempts).await.unwrap_err();
    assert!(matches!(error, SendError::GivenUp { attempts: 2, .. }), "{error}");
    assert_eq!((attempts.sent, attempts.failed), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn retry_attempts_limits_retries() {
    // Guarantees that n repeats mean n + 1 attempts and an error that says so.
    let wire = script([answer(500, None)]);
    let config = RequestConfig { retry_attempts: 3, ..fixed(1) };
    let made = make(wire, &config, OnAuthFailure::Retry);
    let (result, attempts) = send(&made.dispatcher, "a", Idempotency::Idempotent).await;
    assert!(matches!(result, Err(SendError::GivenUp { attempts: 4, .. })), "{result:?}");
    assert_eq!(attempts.sent, 4);
}

#[tokio::test(start_paused = true)]
async fn response_429_pauses_all_requests_once() {
    // Guarantees that nothing starts between the answer and the end of Retry-After, for anyone,
    // and that refusals already on their way do not add up.
    let refusals = std::iter::repeat_n(answer(429, Some("7")), 5);
    let wire = script(refusals.chain([answer(200, None)]));
    let made = make(Arc::clone(&wire), &fixed(5), OnAuthFailure::Retry);
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let dispatcher = Arc::clone(&made.dispatcher);
        tasks.spawn(
            async move { send(&dispatcher, &n.to_string(), Idempotency::Idempotent).await.0 },
        );
    }
    while let Some(result) = tasks.join_next().await {
        assert_eq!(result.unwrap().unwrap().status, 200);
    }
    let seen = wire.seen.lock();
    assert_eq!(seen.len(), 25);
    let late = seen.iter().map(|(at, _)| *at - begin).filter(|at| at.as_millis() > 60);
    let pause = Duration::from_millis(7050);
    let (mut first, mut count) = (Duration::MAX, 0);
    for at in late {
        first = first.min(at);
        count += 1;
    }
    assert_eq!(count, 20);
    assert!(first >= pause && first < pause + Duration::from_millis(500), "{first:?}");
}

#[tokio::test(start_paused = true)]
async fn waiting_retry_delays_no_other_request() {
    // Guarantees that with a single permit a request in its backoff does not hold up the next.
    let wire = script([answer(500, None), answer(200, None)]);
    let config = RequestConfig {
        retry_initial_backoff_secs: 3600,
        retry_max_duration_secs: 3600,
        ..fixed(1)
    };
    let made = make(wire, &config, OnAuthFailure::Retry);
    let mut attempts = Attempts::default();
    let slow = request("slow", Idempotency::Idempotent);
    let mut slow = made.dispatcher.send(&slow, &mut attempts);
    tokio::select! {
        biased;
        _ = &mut slow => panic!("its backoff is an hour"),
        () = sleep(Duration::from_millis(60)) => {}
    }
    assert_eq!(
        send(&made.dispatcher, "quick", Idempotency::Idempotent).await.0.unwrap().status,
        200
    );
}

#[tokio::test(start_paused = true)]
async fn stop_ends_every_wait() {
    // Guarantees that requests in backoff, at the gate and waiting for a permit end at once, while
    // the one on the wire gets its answer.
    let wire = script([answer(500, None), answer(200, None)]);
    let config = RequestConfig {
        retry_initial_backoff_secs: 3600,
        retry_max_duration_secs: 3600,
        ..fixed(1)
    };
    let made = make(wire, &config, OnAuthFailure::Retry);
    let mut tasks = JoinSet::new();
    for n in 0..3 {
        let dispatcher = Arc::clone(&made.dispatcher);
        tasks.spawn(async move {
            (n, send(&dispatcher, &n.to_string(), Idempotency::Idempotent).await.0)
        });
        yield_now().await;
    }
    // The first is in its backoff, the second on the wire, the third waits for the permit.
    sleep(Duration::from_millis(70)).await;
    made.stop.cancel();
    let begin = Instant::now();
    while let Some(done) = tasks.join_next().await {
        let (n, result) = done.unwrap();
        match n {
            1 => assert_eq!(result.unwrap().status, 200),
            _ => assert_eq!(result, Err(SendError::Stopped)),
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(
        send(&made.dispatcher, "x", Idempotency::Idempotent).await.0,
        Err(SendError::Stopped)
    );
}

#[tokio::test(start_paused = true)]
async fn dropped_request_releases_its_permits() {
    // Guarantees that abandoning a request on the wire, or while it probes, frees its permit and
    // its role.
    let wire = script([answer(200, None)]);
    let made = make(Arc::clone(&wire), &fixed(1), OnAuthFailure::Retry);
    for _ in 0..3 {
        let (dispatcher, mut attempts) = (&made.dispatcher, Attempts::default());
        let lost = request("lost", Idempotency::Idempotent);
        let lost = dispatcher.send(&lost, &mut attempts);
        assert!(tokio::time::timeout(Duration::from_millis(10), lost).await.is_err());
    }
    assert_eq!(made.dispatcher.in_flight.load(Ordering::Relaxed), 0);
    let now = Instant::now();
    made.dispatcher.halt.refused(401, now, now, None);
    let mut attempts = Attempts::default();
    let lost = request("probe", Idempotency::Idempotent);
    let lost = made.dispatcher.send(&lost, &mut attempts);
    assert!(tokio::time::timeout(Duration::from_millis(1020), lost).await.is_err());
    assert_eq!(wire.seen.lock().last().unwrap().1, "probe");
    assert!(send(&made.dispatcher, "next", Idempotency::Idempotent).await.0.is_ok());
    assert_eq!(*made.dispatcher.halted().borrow(), AuthBreakerState::Clear);
}

#[tokio::test(start_paused = true)]
async fn refused_key_stops_all_requests_but_one_probe() {
    // Guarantees that while halted one attempt starts per backoff, that all requests survive, and
    // that they continue once the key is valid.
    let refusals = std::iter::repeat_n(answer(401, None), 4 + 5);
    let wire = script(refusals.chain([answer(200, None)]));
    let made = make(Arc::clone(&wire), &fixed(4), OnAuthFailure::Retry);
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..30 {
        let dispatcher = Arc::clone(&made.dispatcher);
        tasks.spawn(
            async move { send(&dispatcher, &n.to_string(), Idempotency::NonIdempotent).await },
        );
    }
    while let Some(done) = tasks.join_next().await {
        let (result, attempts) = done.unwrap();
        assert_eq!(result.unwrap().status, 200);
        assert_eq!(attempts.failed, 0);
    }
    // Probes after 1, 2, 4, 8, 16 and 32 seconds, five of them refused.
    assert!(begin.elapsed() >= Duration::from_secs(63));
    let seen = wire.seen.lock();
    let during = seen.iter().filter(|(at, _)| {
        let at = (*at - begin).as_millis();
        (60..63_000).contains(&at)
    });
    assert_eq!(during.count(), 5);
    assert_eq!(seen.len(), 9 + 30);
}

#[tokio::test(start_paused = true)]
async fn once_run_aborts_after_second_refusal() {
    // Guarantees Refused for everyone waiting, after exactly one confirmation.
    let wire = script([answer(403, None)]);
    let made = make(Arc::clone(&wire), &fixed(1), OnAuthFailure::Abort);
    let mut tasks = JoinSet::new();
    for n in 0..10 {
        let dispatcher = Arc::clone(&made.dispatcher);
        tasks.spawn(
            async move { send(&dispatcher, &n.to_string(), Idempotency::Idempotent).await.0 },
        );
    }
    while let Some(result) = tasks.join_next().await {
        assert_eq!(result.unwrap(), Err(SendError::Refused { status: 403 }));
    }
    assert_eq!(wire.seen.lock().len(), 2);
    assert_eq!(*made.dispatcher.halted().borrow(), AuthBreakerState::Refused { status: 403 });
}

#[tokio::test(start_paused = true)]
async fn retries_obey_the_rate_limit() {
    // Guarantees that in no second more attempts start than allowed, failures and all.
    let mixed = (0..200).map(|n| answer(if n % 3 == 0 { 503 } else { 200 }, None));
    let wire = script(mixed);
    let config = RequestConfig { rate_limit_num: Some(20), ..fixed(50) };
    let made = make(Arc::clone(&wire), &config, OnAuthFailure::Retry);
    let mut tasks = JoinSet::new();
    for n in 0..100 {
        let dispatcher = Arc::clone(&made.dispatcher);
        tasks.spawn(
            async move { send(&dispatcher, &n.to_string(), Idempotency::Idempotent).await.0 },
        );
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    let seen = wire.seen.lock();
    for (i, (first, _)) in seen.iter().enumerate() {
        let second = seen[i..].iter().take_while(|(at, _)| *at < *first + Duration::from_secs(1));
        assert!(second.count() <= 20);
    }
}

/// A server with latency and a token bucket of one second.
struct Throttled {
    rate: f64,
    bucket: Mutex<(f64, Instant)>,
    accepted: AtomicU32,
    refused: AtomicU32,
}

#[async_trait]
impl AttemptTransport for Arc<Throttled> {
    async fn attempt(&self, _request: &Request, _connection: ConnectionChoice) -> Attempt {
        sleep(Duration::from_millis(25)).await;
        let accepted = {
            let mut bucket = self.bucket.lock();
            let now = Instant::now();
            let refill = (now - bucket.1).as_secs_f64() * self.rate;
            *bucket = ((bucket.0 + refill).min(self.rate), now);
            let accepted = bucket.0 >= 1.0;
            if accepted {
                bucket.0 -= 1.0;
            }
            accepted
        };
        sleep(Duration::from_millis(25)).await;
        let counter = if accepted { &self.accepted } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        if accepted { answer(200, None) } else { answer(429, Some("1")) }
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_quota_is_learned_and_respected() {
    // Guarantees, through the whole loop with 200 lanes, >= 95 % of a server's quota over a minute
    // without a limit of our own, and <= 5 % refusals from the fifth second on: what is in flight
    // at the first refusal cannot be called back.
    for rate in [10.0, 50.0, 500.0] {
        let wire = Arc::new(Throttled {
            rate,
            bucket: Mutex::new((rate, Instant::now())),
            accepted: AtomicU32::new(0),
            refused: AtomicU32::new(0),
        });
        let adaptive = RequestConfig {
            concurrency: Concurrency::Mode(ConcurrencyMode::Adaptive),
            ..RequestConfig::default()
        };
        let made = make(Arc::clone(&wire), &adaptive, OnAuthFailure::Retry);
        let mut lanes = JoinSet::new();
        for n in 0..200 {
            let dispatcher = Arc::clone(&made.dispatcher);
            lanes.spawn(async move {
                loop {
                    let (result, _) =
                        send(&dispatcher, &format!("{n}"), Idempotency::Idempotent).await;
                    assert_eq!(result.unwrap().status, 200);
                }
            });
        }
        sleep(Duration::from_secs(5)).await;
        let first = f64::from(wire.refused.load(Ordering::Relaxed));
        sleep(Duration::from_secs(55)).await;
        lanes.shutdown().await;
        let accepted = f64::from(wire.accepted.load(Ordering::Relaxed));
        let refused = f64::from(wire.refused.load(Ordering::Relaxed)) - first;
        println!("{rate}/s: {accepted} accepted, {first} and {refused} refused");
        assert!(accepted >= rate * 60.0 * 0.95, "{rate}/s: {accepted} accepted");
        assert!(refused <= (accepted + refused) * 0.05, "{rate}/s: {refused} refused");
    }
}

/// Refuses by the number of the attempt and the time since the beginning.
struct Refusing<F> {
    begin: Instant,
    attempts: AtomicU32,
    accepted: Mutex<Vec<Instant>>,
    refuses: F,
}

#[async_trait]
impl<F: Fn(u32, Duration) -> bool + Send + Sync> AttemptTransport for Arc<Refusing<F>> {
    async fn attempt(&self, _request: &Request, _connection: ConnectionChoice) -> Attempt {
        sleep(Duration::from_millis(50)).await;
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        if (self.refuses)(attempt, self.begin.elapsed()) {
            return answer(429, Some("1"));
        }
        self.accepted.lock().push(Instant::now());
        answer(200, None)
    }
}

/// What 40 lanes deliver a second, second by second.
async fn delivered<F: Fn(u32, Duration) -> bool + Send + Sync + 'static>(
    seconds: usize,
    refuses: F,
) -> Vec<u32> {
    let begin = Instant::now();
    let (attempts, accepted) = (AtomicU32::new(0), Mutex::default());
    let wire = Arc::new(Refusing { begin, attempts, accepted, refuses });
    let config = RequestConfig {
        concurrency: Concurrency::Mode(ConcurrencyMode::Adaptive),
        ..RequestConfig::default()
    };
    let made = make(Arc::clone(&wire), &config, OnAuthFailure::Retry);
    let mut lanes = JoinSet::new();
    for n in 0..40 {
        let dispatcher = Arc::clone(&made.dispatcher);
        lanes.spawn(async move {
            loop {
                send(&dispatcher, &n.to_string(), Idempotency::Idempotent).await.0.unwrap();
            }
        });
    }
    sleep(Duration::from_secs(seconds as u64)).await;
    lanes.shutdown().await;
    let mut counts = vec![0; seconds + 1];
    for at in wire.accepted.lock().iter() {
        counts[usize::try_from((*at - begin).as_secs()).unwrap()] += 1;
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn storm_of_429_leaves_former_rate() {
    // Guarantees that 15 s after everything was refused for 5 to 30 s, at the beginning or in
    // mid-run, at least 90 % of the former rate is delivered again.
    for (from, to) in [(20, 25), (20, 50), (0, 10)] {
        let storm = Duration::from_secs(from)..Duration::from_secs(to);
        let counts = delivered(80, move |_, since| storm.contains(&since)).await;
        let back = usize::try_from(to).unwrap() + 15;
        let former = if from > 0 { counts[15] } else { 800 };
        println!("{from}..{to}: {former} before, {} after", counts[back]);
        assert!(counts[back] * 10 >= former * 9, "{from}..{to}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_by_chance_keep_the_rate() {
    // Guarantees that one refusal in ten with `Retry-After: 1` delays only the request that it
    // concerns: each of 40 lanes delivers nine requests in about two seconds and not in ten.
    let counts = delivered(30, |attempt, _| attempt % 10 == 9).await;
    let rate = counts[5..30].iter().sum::<u32>() / 25;
    println!("{rate}/s");
    assert!(rate >= 250, "{rate}/s: {counts:?}");
}

#[tokio::test(start_paused = true)]
async fn adaptive_concurrency_reaches_throughput_of_fixed_limit() {
    // Guarantees, through the whole loop with 200 lanes and 50 ms, >= 85 % of the throughput of a
    // fixed limit of 200 over 25 s, ramp included.
    let mut done = Vec::new();
    for concurrency in [Concurrency::Fixed(200), Concurrency::Mode(ConcurrencyMode::Adaptive)] {
        let wire = script([answer(200, None)]);
        let config = RequestConfig { concurrency, ..RequestConfig::default() };
        let made = make(Arc::clone(&wire), &config, OnAuthFailure::Retry);
        let mut lanes = JoinSet::new();
        for n in 0..200 {
            let dispatcher = Arc::clone(&made.dispatcher);
            lanes.spawn(async move {
                loop {
                    send(&dispatcher, &format!("{n}"), Idempotency::Idempotent).await.0.unwrap();
                }
            });
        }
        sleep(Duration::from_secs(25)).await;
        lanes.shutdown().await;
        done.push(wire.seen.lock().len());
    }
    println!("fixed {}, adaptive {}", done[0], done[1]);
    assert!(done[1] * 100 >= done[0] * 85, "{done:?}");
}
