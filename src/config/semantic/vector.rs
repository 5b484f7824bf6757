//! Checks the `vector` source: its address and certificates.

use std::net::SocketAddr;

use super::{FaultCollector, http};
use crate::config::fault::{ConfigPath, Target};
use crate::config::source::VectorSourceConfig;

/// Faults of one source.
pub(super) fn check(faults: &mut FaultCollector<'_>, at: &ConfigPath, vector: &VectorSourceConfig) {
    if vector.address.parse::<SocketAddr>().is_err() {
        let message = format!("`{}` is not an IP address and port", vector.address);
        let help = "write both: `127.0.0.1:6000`, or `0.0.0.0:6000` for every interface";
        faults.at("E0340", at.key("address"), Target::Value, message, help);
    }
    http::tls(faults, &at.key("tls"), &vector.tls);
}
