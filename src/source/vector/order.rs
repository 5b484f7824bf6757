//! Keeps the order of the requests of one connection: each enters the pipeline whole and after
//! those that arrived before it, although they are read and decoded concurrently.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The requests of one connection, in order of arrival.
#[derive(Debug)]
pub(super) struct RequestOrder {
    state: Arc<Mutex<OrderState>>,
    /// The number of the request that may proceed.
    turn: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct OrderState {
    next: u64,
    /// Requests that ended before they could proceed.
    ended: BTreeSet<u64>,
}

impl RequestOrder {
    pub(super) fn new() -> Self {
        Self { state: Arc::default(), turn: watch::Sender::new(0) }
    }

    /// The position of a request that arrives now.
    pub(super) fn arrive(&self) -> OrderTicket {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        OrderTicket { number, state: Arc::clone(&self.state), turn: self.turn.clone() }
    }
}

/// The position of one request; released when it is dropped.
#[derive(Debug)]
pub(super) struct OrderTicket {
    number: u64,
    state: Arc<Mutex<OrderState>>,
    turn: watch::Sender<u64>,
}

impl OrderTicket {
    /// Waits until all requests that arrived before have entered or ended.
    pub(super) async fn turn(&self) {
        let mut turn = self.turn.subscribe();
        // The sender lives as long as this ticket, so waiting cannot fail.
        drop(turn.wait_for(|turn| *turn >= self.number).await);
    }
}

impl Drop for OrderTicket {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.ended.insert(self.number);
        self.turn.send_modify(|turn| {
            while state.ended.remove(turn) {
                *turn += 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn request_proceeds_when_all_earlier_ones_ended(
            ends in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle()
        ) {
            // Guarantees that a request may proceed exactly when every earlier request has ended,
            // in whatever order requests end.
            let order = RequestOrder::new();
            let mut tickets: Vec<Option<OrderTicket>> = (0..12).map(|_| Some(order.arrive())).collect();
            for end in ends {
                tickets[end] = None;
                for (at, ticket) in tickets.iter().enumerate() {
                    let Some(ticket) = ticket else { continue };
                    let first = tickets[..at].iter().all(Option::is_none);
                    prop_assert_eq!(ticket.turn().now_or_never().is_some(), first);
                }
            }
        }
    }
}
