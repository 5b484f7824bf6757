//! TLS of a source that listens, as it is written. The names are Vector's.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS of a source that listens.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsServer {
    /// Whether connections are encrypted. Default: false.
    pub enabled: bool,
    /// The certificate chain, a PEM file. Needed where TLS is enabled.
    pub crt_file: Option<PathBuf>,
    /// The certificate's private key, a PEM file. Needed where TLS is enabled.
    pub key_file: Option<PathBuf>,
    /// Certificates of the authorities whose clients are trusted, a PEM file.
    pub ca_file: Option<PathBuf>,
    /// Whether a client must show a certificate signed by `ca_file`. Default: false.
    pub verify_certificate: bool,
}
