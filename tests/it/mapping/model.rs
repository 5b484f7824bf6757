//! The plan against a model.
