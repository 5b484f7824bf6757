//! The thread that talks to the group coordinator: it fetches the committed offsets of assigned
//! partitions and commits positions and claims.
//!
//! # Invariants
//!
//! It waits for every answer, so that what counts as committed is committed.

use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use tokio::time::Instant;

use super::callbacks::ConsumerCallbacks;
use super::consumer_state::ConsumerState;

/// The pause after a failure.
const COMMIT_RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Works until it is stopped. Commits at the given interval, and at once when a claim is requested.
pub(super) fn work(
    consumer: &BaseConsumer<ConsumerCallbacks>,
    context: &ConsumerCallbacks,
    every: Duration,
) {
    let mut late = Instant::now() + every;
    let mut failures: u32 = 0;
    while context.state.wait_for_work(late) {
        // Both run, whatever the result of the first: a partition that cannot be looked up must not
        // delay the others.
        let asked = context.fetch_committed(consumer);
        let done = context.commit(consumer).and(asked);
        late = Instant::now() + every;
        let Err(error) = done else {
            failures = 0;
            continue;
        };
        failures += 1;
        // Brokers refuse commits during a rebalance, so one refusal is not logged.
        if failures > 1 && failures.is_power_of_two() {
            context.logger.error(
                &error,
                "offsets could not be committed; it is tried again, and nothing is lost",
            );
        }
        context.state.pause(COMMIT_RETRY_INTERVAL);
        // What was due is still due.
        late = Instant::now();
    }
}

/// Stops the committer when it is dropped, however reading ends.
pub(super) struct StopOnDrop<'a>(pub(super) &'a ConsumerState);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
