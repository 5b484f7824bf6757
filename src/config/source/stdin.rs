//! The settings of the `stdin` source.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Decoding, FileSourceConfig, MultilineConfig};

/// Reads lines of standard input. Standard input cannot be read again: with a memory buffer, what
/// is not settled when the process is killed is lost.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdinSourceConfig {
    /// How lines become records.
    #[serde(default)]
    pub decoding: Decoding,
    /// The IANA time zone of times without a zone, such as `2024-05-21 10:11:12`: `Europe/Warsaw`.
    /// It applies to the target `timestamp` and to `as = "timestamp"`, where the field has no
    /// `timezone` of its own, and to the preset. Set it where a system writes local time. Default:
    /// UTC.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Joins lines that belong together before they are decoded. Default: every line is a record of
    /// its own.
    #[serde(default)]
    pub multiline: Option<MultilineConfig>,
    /// The longest line, in bytes, joined lines included; a longer one is a dead letter. Default:
    /// 1048576.
    #[serde(default = "FileSourceConfig::default_max_line_bytes")]
    #[schemars(range(min = 1))]
    pub max_line_bytes: usize,
}
