//! The settings of the `file` source.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Decoding, MultilineConfig};

/// Lines of files, followed as they grow.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSourceConfig {
    /// Glob patterns of files to read. Relative ones start in the folder of the pipeline file. At
    /// least one.
    #[schemars(length(min = 1))]
    pub include: Vec<String>,
    /// Glob patterns of files that are not read. Default: none.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Where to start in a file without a checkpoint. Default: `beginning`.
    #[serde(default)]
    pub read_from: ReadFrom,
    /// How a file that was read before is recognised. Default: `inode`. Set `content` where device
    /// and inode numbers are reused or change while the files stay the same (some network and
    /// container file systems).
    #[serde(default)]
    pub fingerprint: FileFingerprint,
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

impl FileSourceConfig {
    pub(super) fn default_max_line_bytes() -> usize {
        1 << 20
    }
}

/// How a file that was read before is recognised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileFingerprint {
    /// By device and inode number, its first and its last bytes that were read. A file with new
    /// numbers is recognised by all bytes that were read of it.
    #[default]
    Inode,
    /// By all bytes that were read of it, whatever its numbers. At each start every file is read up
    /// to its checkpoint.
    Content,
}

/// Where to start in a file without a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadFrom {
    /// Read the file from its beginning.
    #[default]
    Beginning,
    /// Read only what is appended from now on.
    End,
}
