//! Times, ids, names and text in records of real senders.
