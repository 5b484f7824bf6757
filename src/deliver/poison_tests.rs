//! Poison against outages, under a paused clock: the pure decision, and through the dispatcher.

use super::*;
use proptest::prelude::*;

const KEY: (Method, &str) = (Method::Post, "events/");

/// One failed attempt and what others did since the one before.
#[derive(Debug, Clone, Copy)]
struct Step {
    secs: u64,
    route: u64,
    other: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0_u64..90, prop_oneof![3 => Just(0_u64), 1 => 1..4_u64], 0_u64..2)
        .prop_map(|(secs, route, other)| Step { secs, route, other });
    proptest::collection::vec(step, 1..60)
}

/// The rule in plain words, over the whole history.
fn model(
    steps: &[Step],
    success_before: Option<u64>,
    failing: usize,
    policy: PoisonPolicy,
) -> bool {
    let behind = &steps[1..];
    let secs: u64 = behind.iter().map(|step| step.secs).sum();
    let often = (policy.attempts as usize).div_ceil(2).clamp(1, 5);
    let accompanied = behind.iter().filter(|step| step.route > 0).count();
    let alive = behind.iter().filter(|step| step.route + step.other > 0).count();
    let near = success_before.is_some_and(|secs| secs <= 10);
    let few =
        failing <= 2 || (policy.run == RunMode::ToTheEnd && secs >= 5 * policy.least.as_secs());
    policy.attempts > 0
        && steps.len() >= policy.attempts as usize
        && secs >= policy.least.as_secs()
        && (accompanied >= often || ((near || accompanied > 0) && alive >= often && few))
}

proptest! {
    #[test]
    fn request_that_fails_while_others_succeed_is_poisoned(
        steps in steps(),
        success_before in proptest::option::of(0_u64..30),
        others_failing in 0_usize..5,
        attempts in 0_u32..12,
        least in prop_oneof![Just(0_u64), Just(60), Just(600)],
        once in any::<bool>(),
    ) {
        // Guarantees the rule for every history of failures and successes: never without enough
        // failures and time, never while no request succeeds.
        let run = if once { RunMode::ToTheEnd } else { RunMode::Service };
        let policy = PoisonPolicy { attempts, least: Duration::from_secs(least), run };
        let (route_counter, asker) = (FailureCount::default(), FailureCount::default());
        drop(asker);
        let others: Vec<FailureCount> = (0..others_failing).map(|_| route_counter.clone()).collect();
        let mut failure_history = FailureHistory::default();
        let mut now = Instant::now() + Duration::from_secs(60);
        let mut witness = RecentSuccesses {
            route: u64::from(success_before.is_some()),
            route_last: success_before.map(|secs| now - Duration::from_secs(secs)),
            any: 1,
        };
        for (n, step) in steps.iter().enumerate() {
            if n > 0 {
                now += Duration::from_secs(step.secs);
                witness.route += step.route;
                witness.any += step.route + step.other;
                if step.route > 0 {
                    witness.route_last = Some(now);
                }
            }
            failure_history.failed(KEY, now, witness, &route_counter, "status 500".into(), None);
            let asked = route_counter.clone();
            let poison = failure_history.poison(KEY, policy, now, &asked, Need::Required).is_some();
            let expected = model(&steps[..=n], success_before, others_failing + 1, policy);
            prop_assert_eq!(poison, expected, "after {} failures", n + 1);
            let no_success = success_before.is_none() && steps[1..=n].iter().all(|s| s.route == 0);
            prop_assert!(!(poison && no_success));
        }
        drop(others);
    }
}

#[test]
fn success_resets_failure_count() {
    // Guarantees that a request which succeeds in the end begins again, and that requests of
    // another route are distinguished.
    let failing = FailureCount::default();
    let mut failure_history = FailureHistory::default();
    let now = Instant::now();
    for _ in 0..3 {
        failure_history.failed(KEY, now, RecentSuccesses::default(), &failing, "x".into(), None);
    }
    assert_eq!(failure_history.failures(KEY.0, KEY.1), 3);
    assert!(!failure_history.succeeded(Method::Get, KEY.1));
    assert!(failure_history.succeeded(KEY.0, KEY.1));
    assert_eq!(failure_history.failures(KEY.0, KEY.1), 0);
}
