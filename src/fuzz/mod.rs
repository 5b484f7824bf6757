//! Bodies of the fuzz targets in `fuzz/`: each reads bytes of a stranger, and panics only where a
//! promise does not hold.
//!
//! They stand here so that a plain test runs the corpora too. Not part of the public interface.

mod config;
mod decoders;
mod json_scan;
mod mapping;
mod requests;

/// A target: takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name in `fuzz/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("config", config::config),
    ("decoders", decoders::decoders),
    #[cfg(feature = "vector")]
    ("grpc_body", requests::grpc_body),
    ("http_body", requests::http_body),
    ("json_scan", json_scan::json_scan),
    ("paths_and_templates", mapping::paths_and_templates),
];

/// Runs a target.
///
/// # Panics
/// If the target does not exist, or finds a fault.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("there is no fuzz target {name}"));
    target(data);
}

/// Whether bytes are one JSON value.
fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&serde_json::value::RawValue>(bytes).is_ok()
}
