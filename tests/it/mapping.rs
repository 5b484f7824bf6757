//! The mapping room, seen from outside: fixtures a directive, a model, and hostile input.

mod fixtures;
mod hostile;
mod mix;
mod model;
mod model_table;
