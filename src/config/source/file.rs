//! The `file` source as it is written.

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
    /// Glob patterns of files to leave out. Default: none.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Where to begin in a file without a checkpoint. Default: `beginning`.
    #[serde(default)]
    pub read_from: ReadFrom,
    /// How a file is known that was read before. Default: `inode`. Take `content` where device and
    /// inode numbers are given to other files, or change, while the files stay the same (some
    /// network and container file systems).
    #[serde(default)]
    pub fingerprint: FileFingerprint,
    /// How lines become records.
    #[serde(default)]
    pub decoding: Decoding,
    /// The IANA time zone of times that name none, such as `2024-05-21 10:11:12`: `Europe/Warsaw`. It
    /// holds for the target `timestamp` and for `as = "timestamp"`, where the field has no `timezone`
    /// of its own, and in the preset. Set it where a system writes local time. Default: UTC.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Joins lines that belong together before they are decoded. Default: every line stands alone.
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

/// How a file is known that was read before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileFingerprint {
    /// By device and inode number, its first and its last bytes that were read. A file whose numbers
    /// are unknown is known by all bytes that were read of it.
    #[default]
    Inode,
    /// By all bytes that were read of it, whatever its numbers. At each start every file is read
    /// up to its checkpoint.
    Content,
}

/// Where to begin in a file without a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadFrom {
    /// Read the file from its beginning.
    #[default]
    Beginning,
    /// Read only what is appended from now on.
    End,
}
