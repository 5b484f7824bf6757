//! The thread that talks with the group's coordinator: it asks what is committed of partitions that
//! came, and commits what is settled and what is claimed.
//!
//! Not here: what that is (`ledger`). One invariant: it waits for every answer, so that what counts
//! as committed is.

use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use tokio::time::Instant;

use super::callbacks::ConsumerCallbacks;
use super::consumer_state::ConsumerState;

/// How long it rests after a failure.
const COMMIT_RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Works until it is dismissed. Commits are made every so often, and claims when they are wanted.
pub(super) fn work(
    consumer: &BaseConsumer<ConsumerCallbacks>,
    context: &ConsumerCallbacks,
    every: Duration,
) {
    let mut late = Instant::now() + every;
    let mut failures: u32 = 0;
    while context.state.wait_for_work(late) {
        // Both, whatever becomes of the first: a partition that cannot be looked up holds up no other.
        let asked = context.fetch_committed(consumer);
        let done = context.commit(consumer).and(asked);
        late = Instant::now() + every;
        let Err(error) = done else {
            failures = 0;
            continue;
        };
        failures += 1;
        // Brokers refuse while the group is in motion: one refusal is no news.
        if failures > 1 && failures.is_power_of_two() {
            context.logger.error(&error, "offsets could not be committed, trying again");
        }
        context.state.rest(COMMIT_RETRY_INTERVAL);
        // What was due is due still.
        late = Instant::now();
    }
}

/// Sends the committer away when it is dropped, however the reading ends.
pub(super) struct StopOnDrop<'a>(pub(super) &'a ConsumerState);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
