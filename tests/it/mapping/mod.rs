//! The mapping from outside: fixtures a directive, a model, and hostile input.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the way tests do")]

mod fixtures;
mod hostile;
mod mix;
mod model;
mod model_table;
