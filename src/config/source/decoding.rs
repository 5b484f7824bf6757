//! Decoding as it is written: how a line becomes a record.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a line becomes a record.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Decoding {
    /// The codec. Default: `json`.
    pub codec: Codec,
    /// For `regex`: the pattern; its named groups become fields. Lines it does not match are dead
    /// letters.
    pub pattern: Option<String>,
    /// For `csv`: the names of the columns. Default: the first line names them.
    pub columns: Option<Vec<String>>,
    /// For `csv`: the separator, one character. Default: `,`.
    pub delimiter: Option<String>,
}

/// Codecs of lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// One JSON value a line.
    #[default]
    Json,
    /// The line as `{"message": …}`.
    Text,
    /// Comma separated values; every value is text.
    Csv,
    /// `key=value` pairs; every value is text.
    Logfmt,
    /// Named groups of a pattern.
    Regex,
}
