//! Sources as they are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A source, by `type`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// Lines of files, followed as they grow.
    File(FileSource),
    /// Lines of standard input.
    Stdin(StdinSource),
}

impl SourceConfig {
    /// The `type`, as the file writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Stdin(_) => "stdin",
        }
    }
}

/// Lines of files, followed as they grow.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSource {
    /// Glob patterns of files to read, relative to the working directory. At least one.
    #[schemars(length(min = 1))]
    pub include: Vec<String>,
    /// Glob patterns of files to leave out. Default: none.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Where to begin in a file without a checkpoint. Default: `beginning`.
    #[serde(default)]
    pub read_from: ReadFrom,
    /// How lines become records.
    #[serde(default)]
    pub decoding: Decoding,
    /// The longest line, in bytes; a longer one is a dead letter. Default: 1048576.
    #[serde(default = "FileSource::default_max_line_bytes")]
    #[schemars(range(min = 1))]
    pub max_line_bytes: usize,
}

impl FileSource {
    fn default_max_line_bytes() -> usize {
        1 << 20
    }
}

/// Where to begin in a file without a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadFrom {
    /// At its first byte.
    #[default]
    Beginning,
    /// Behind its last.
    End,
}

/// Lines of standard input. Standard input cannot be read again: with a memory buffer, what is not
/// settled when the process is killed is lost.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdinSource {
    /// How lines become records.
    #[serde(default)]
    pub decoding: Decoding,
    /// The longest line, in bytes; a longer one is a dead letter. Default: 1048576.
    #[serde(default = "FileSource::default_max_line_bytes")]
    #[schemars(range(min = 1))]
    pub max_line_bytes: usize,
}

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
