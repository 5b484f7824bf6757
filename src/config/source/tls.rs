//! TLS settings of a listening source. The names are Vector's.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS of a listening source.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsServer {
    /// Whether connections are encrypted. Default: false.
    pub enabled: bool,
    /// The certificate chain, a PEM file. Required where TLS is enabled.
    pub crt_file: Option<PathBuf>,
    /// The private key of the certificate, a PEM file. Required where TLS is enabled.
    pub key_file: Option<PathBuf>,
    /// Certificates of the authorities that sign trusted client certificates, a PEM file.
    pub ca_file: Option<PathBuf>,
    /// Whether a client must send a certificate signed by `ca_file`. Default: false.
    pub verify_certificate: bool,
}
