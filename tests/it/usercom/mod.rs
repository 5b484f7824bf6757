//! The destination, from calls to requests, against a User.com made of maps.

mod attributes;
mod companies;
mod convert;
mod fake;
mod folding;
mod matching;
mod occurrences;
mod paths;
mod profile;
mod profile_limits;
mod users;
