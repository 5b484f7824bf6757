//! Files that are rotated, copied, truncated or half written.
