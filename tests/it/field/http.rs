//! Webhooks and other HTTP senders.
