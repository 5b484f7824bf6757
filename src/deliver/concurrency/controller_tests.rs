//! The controller against simulated servers, under a paused clock.

use super::*;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

struct Run {
    done: usize,
    limits: Vec<usize>,
    slowest: Duration,
}

/// Endless work for a server with `workers` that each need `service` (plus jitter) for an attempt.
fn run(
    mut limit: impl FnMut(Option<(Instant, Duration)>, Option<Instant>) -> usize,
    workers: usize,
    service: Duration,
    jitter: f64,
    length: Duration,
) -> Run {
    let mut rng = StdRng::seed_from_u64(3);
    let start = Instant::now();
    let mut free: BinaryHeap<Reverse<Instant>> = (0..workers).map(|_| Reverse(start)).collect();
    let mut flying: BinaryHeap<Reverse<(Instant, Instant)>> = BinaryHeap::new();
    let mut now = start;
    let mut run = Run { done: 0, limits: Vec::new(), slowest: Duration::ZERO };
    let mut allowed = limit(None, None);
    while now < start + length {
        while flying.len() < allowed.min(200) {
            allowed = limit(None, Some(now));
            let Reverse(worker) = free.pop().unwrap();
            let took = service.mul_f64(1.0 + jitter * rng.random::<f64>());
            let done = worker.max(now) + took;
            free.push(Reverse(done));
            flying.push(Reverse((done, now)));
        }
        let Reverse((done, sent)) = flying.pop().unwrap();
        now = done;
        run.done += 1;
        if now > start + length / 3 {
            run.slowest = run.slowest.max(now - sent);
        }
        allowed = limit(Some((now, now - sent)), None);
        run.limits.push(allowed);
    }
    run
}

fn adaptive(workers: usize, service: Duration, jitter: f64, length: Duration) -> Run {
    let mut controller = Controller::new(ControllerSettings::default(), Instant::now());
    run(
        move |done, sent| {
            if let Some((now, rtt)) = done {
                controller.done(now, rtt, LoadSignal::Good);
            }
            if let Some(now) = sent {
                controller.sent(now);
            }
            controller.limit()
        },
        workers,
        service,
        jitter,
        length,
    )
}

const MS50: Duration = Duration::from_millis(50);

#[test]
fn constant_latency_server_gets_throughput_of_fixed_limit() {
    // Guarantees >= 85 % of the best fixed limit's throughput over 25 s, ramp included, with and
    // without jitter.
    for jitter in [0.0, 0.2, 1.0] {
        let length = Duration::from_secs(25);
        let fixed = run(|_, _| 200, 1000, MS50, jitter, length).done;
        let found = adaptive(1000, MS50, jitter, length).done;
        println!("jitter {jitter}: {found} of {fixed}");
        assert!(found * 100 >= fixed * 85, "jitter {jitter}: {found} of {fixed}");
    }
}

#[test]
fn queueing_server_keeps_short_latency() {
    // Guarantees that with ten workers of 50 ms nothing waits longer than three service times
    // once settled, over ten minutes, while the workers stay busy.
    for jitter in [0.0, 0.2] {
        let length = Duration::from_secs(600);
        let best = run(|_, _| 10, 10, MS50, jitter, length).done;
        let found = adaptive(10, MS50, jitter, length);
        println!(
            "jitter {jitter}: {} of {best}, slowest {:?}, last limit {:?}",
            found.done,
            found.slowest,
            found.limits.last()
        );
        assert!(found.slowest <= MS50.mul_f64(3.0 * (1.0 + jitter)), "{:?}", found.slowest);
        assert!(found.done * 100 >= best * 85, "{} of {best}", found.done);
    }
}

#[test]
fn backpressure_lowers_limit_once_per_window() {
    // Guarantees that a burst of refusals of attempts sent together costs one decrease, and that
    // neutral answers cost none.
    let mut now = Instant::now();
    let settings = ControllerSettings { initial: 100, ..ControllerSettings::default() };
    let mut controller = Controller::new(settings, now);
    for signal in [LoadSignal::Neutral, LoadSignal::Backpressure] {
        for _ in 0..100 {
            controller.sent(now);
        }
        now += Duration::from_secs(2);
        for n in 0..100 {
            now += Duration::from_millis(30);
            controller.done(now, Duration::from_secs(2) + Duration::from_millis(30 * n), signal);
        }
        let expected = if signal == LoadSignal::Neutral { 100 } else { 90 };
        assert_eq!(controller.limit(), expected);
    }
}

#[test]
fn unused_limit_does_not_grow() {
    // Guarantees that an idle sink does not get a high limit.
    let mut now = Instant::now();
    let settings = ControllerSettings { initial: 10, ..ControllerSettings::default() };
    let mut controller = Controller::new(settings, now);
    for _ in 0..1000 {
        controller.sent(now);
        now += MS50;
        controller.done(now, MS50, LoadSignal::Good);
    }
    assert_eq!(controller.limit(), 10);
}

#[test]
fn changed_request_mix_is_learned() {
    // Guarantees that when all requests become four times slower without any load, the limit
    // recovers and does not stay low.
    let mut controller = Controller::new(ControllerSettings::default(), Instant::now());
    let (mut now, mut end) = (Instant::now(), Duration::ZERO);
    let start = now;
    while end < Duration::from_secs(400) {
        let rtt = if end < Duration::from_secs(20) { MS50 } else { MS50 * 4 };
        let batch = controller.limit();
        for _ in 0..batch {
            controller.sent(now);
        }
        now += rtt;
        for _ in 0..batch {
            controller.done(now, rtt, LoadSignal::Good);
        }
        end = now - start;
    }
    assert!(controller.limit() > 100, "{}", controller.limit());
}

proptest! {
    #[test]
    fn limit_stays_within_bounds(
        steps in proptest::collection::vec((0_u64..500, 0_u64..3000, 0_u8..4), 1..500),
        max in 1_usize..300,
    ) {
        // Guarantees 1 <= limit <= max whatever happens, and that a change is reported.
        let mut now = Instant::now() + Duration::from_secs(10);
        let settings = ControllerSettings { max, ..ControllerSettings::default() };
        let mut controller = Controller::new(settings, now);
        for (passed, rtt, what) in steps {
            now += Duration::from_millis(passed);
            let before = controller.limit();
            let signal = match what {
                0 => {
                    controller.sent(now);
                    continue;
                }
                1 => LoadSignal::Good,
                2 => LoadSignal::Backpressure,
                _ => LoadSignal::Neutral,
            };
            let told = controller.done(now, Duration::from_millis(rtt), signal);
            prop_assert!((1..=max).contains(&controller.limit()));
            prop_assert_eq!(told, (before != controller.limit()).then_some(controller.limit()));
        }
    }
}
