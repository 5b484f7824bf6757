//! usercom
