//! The thread that talks with the group's coordinator: it asks what is committed of partitions that
//! came, and commits what is settled and what is claimed.
//!
//! Not here: what that is (`ledger`). One invariant: it waits for every answer, so that what counts
//! as committed is.

use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use tokio::time::Instant;

use super::context::Context;
use super::desk::Desk;

/// How long it rests after a failure.
const AGAIN: Duration = Duration::from_millis(200);

/// Works until it is dismissed. Commits are made every so often, and claims when they are wanted.
pub(super) fn work(consumer: &BaseConsumer<Context>, context: &Context, every: Duration) {
    let mut late = Instant::now() + every;
    let mut failures: u32 = 0;
    while context.desk.await_errand(late) {
        // Both, whatever becomes of the first: a partition nobody knows of holds up no other.
        let asked = context.look_up(consumer);
        let done = context.commit(consumer).and(asked);
        late = Instant::now() + every;
        let Err(error) = done else {
            failures = 0;
            continue;
        };
        failures += 1;
        // Brokers refuse while the group is in motion: one refusal is no news.
        if failures > 1 && failures.is_power_of_two() {
            context.logs.error(&error, "offsets could not be committed, trying again");
        }
        context.desk.rest(AGAIN);
        // What was due is due still.
        late = Instant::now();
    }
}

/// Sends the clerk away when it is dropped, however the reading ends.
pub(super) struct Dismissal<'a>(pub(super) &'a Desk);

impl Drop for Dismissal<'_> {
    fn drop(&mut self) {
        self.0.dismiss();
    }
}
