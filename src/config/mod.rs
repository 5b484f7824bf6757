//! The pipeline file: from text to typed settings, and every fault with its place.

pub mod fault;
pub mod mapping;
pub mod sink;
pub mod source;
