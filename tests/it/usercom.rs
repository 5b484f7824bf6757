//! The destination, from calls to requests, against a User.com made of maps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attributes;
mod companies;
mod convert;
mod fake;
mod occurrences;
mod paths;
mod profile;
mod users;
