//! The settings of decoding: how lines or messages become records.
//!
//! One table is one step; a list is several, each of which reads a string from the result of the
//! one before.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How lines or messages become records: one step or several.
#[derive(Debug, Clone, Default)]
pub struct Decoding {
    /// The step that reads the line.
    pub first: DecodingStep,
    /// Further steps, each of which reads a string from the result of the step before.
    pub then: Vec<DecodingStep>,
}

/// One decoding step: a codec and its settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecodingStep {
    /// The codec. Default: `json`.
    pub codec: Codec,
    /// For every step but the first: the string to decode, as a path into the result of the step
    /// before. Default: `.message`.
    pub from: Option<String>,
    /// For every step but the first: where its result is inserted, as a path in the result of the
    /// step before. Default: `.`, its result is the record. The results of earlier steps are
    /// available under `%decoded.CODEC`, such as `%decoded.cri.stream`; a codec that is used a
    /// second time has a number after its name: `%decoded.json_2`.
    pub into: Option<String>,
    /// For the first step: the character encoding of the lines, by any name that browsers know,
    /// such as `utf-16`, `latin1`, `windows-1250`. `utf-16` uses the byte order of the byte order
    /// mark at the start, and is little-endian without one. Default: `utf-8`, with or without a
    /// byte order mark.
    pub charset: Option<String>,
    /// For `regex`: the pattern; its named groups become fields. Lines that do not match are dead
    /// letters.
    pub pattern: Option<String>,
    /// For `csv`: the names of the columns. Default: the first row names them.
    pub columns: Option<Vec<String>>,
    /// For `csv`: the separator, one ASCII character. Default: `,`.
    pub delimiter: Option<String>,
}

/// Codecs of lines and messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// One JSON value per line. Each element of an array is a record, and so is each of several
    /// adjacent objects on one line; at most 10000 per line.
    #[default]
    Json,
    /// The line as `{"message": …}`.
    Text,
    /// Comma separated values (RFC 4180); every value is a string. A quoted value may contain
    /// newlines.
    Csv,
    /// `key=value` pairs; every value is a string.
    Logfmt,
    /// Named groups of a pattern; every value is a string.
    Regex,
    /// Syslog, RFC 5424 and RFC 3164, also as syslog daemons write it into files: `facility`,
    /// `severity` (as words), `timestamp` (RFC 3339, UTC), `hostname`, `appname`, `procid`,
    /// `msgid`, `version`, each element of structured data as an object under its name, and
    /// `message`. A time without a year gets the latest year in which it is not in the future.
    Syslog,
    /// Lines of container runtimes (containerd, CRI-O): `time`, `stream`, `message`. Partial lines
    /// are joined, by stream.
    Cri,
    /// Lines of Docker's `json-file` driver: `time`, `stream`, `message`, and `attrs` where there
    /// are any. Partial lines are joined, by stream.
    Docker,
}

impl Codec {
    /// The name in the pipeline file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Csv => "csv",
            Self::Logfmt => "logfmt",
            Self::Regex => "regex",
            Self::Syslog => "syslog",
            Self::Cri => "cri",
            Self::Docker => "docker",
        }
    }
}

impl Decoding {
    /// All steps, in order.
    pub fn steps(&self) -> impl Iterator<Item = &DecodingStep> {
        std::iter::once(&self.first).chain(&self.then)
    }

    /// The codec, where there is only one step.
    pub fn only_codec(&self) -> Option<Codec> {
        self.then.is_empty().then_some(self.first.codec)
    }
}

impl From<DecodingStep> for Decoding {
    fn from(first: DecodingStep) -> Self {
        Self { first, then: Vec::new() }
    }
}

impl Serialize for Decoding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.then.is_empty() {
            true => self.first.serialize(serializer),
            false => serializer.collect_seq(self.steps()),
        }
    }
}

impl<'de> Deserialize<'de> for Decoding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Forms)
    }
}

/// A table, or a list of tables.
struct Forms;

impl<'de> Visitor<'de> for Forms {
    type Value = Decoding;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table or a list of tables")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Decoding, A::Error> {
        DecodingStep::deserialize(MapAccessDeserializer::new(map)).map(Decoding::from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Decoding, A::Error> {
        let mut steps = Vec::<DecodingStep>::deserialize(SeqAccessDeserializer::new(seq))?;
        if steps.is_empty() {
            return Err(A::Error::custom("at least one step is needed"));
        }
        let first = steps.remove(0);
        Ok(Decoding { first, then: steps })
    }
}

impl JsonSchema for Decoding {
    fn schema_name() -> Cow<'static, str> {
        "Decoding".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let step = generator.subschema_for::<DecodingStep>();
        json_schema!({
            "description": "How lines or messages become records: one step, or a list of steps, each of which reads text out of what the step before made: `[{ codec = \"cri\" }, { codec = \"json\", from = \".message\" }]`.",
            "anyOf": [step, { "type": "array", "items": step, "minItems": 1, "maxItems": 8 }],
        })
    }
}

/// Joins lines that belong together, such as the lines of a stack trace, before they are decoded.
/// The keys are Vector's. A group whose lines together are longer than `max_line_bytes` is a dead
/// letter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MultilineConfig {
    /// A regular expression: a line that matches begins a group. Lines before the first such line
    /// are records of their own.
    pub start_pattern: String,
    /// A regular expression with which the lines after the first are compared, as `mode` says.
    pub condition_pattern: String,
    /// How `condition_pattern` ends a group.
    pub mode: MultilineMode,
    /// How long a group waits for another line, in milliseconds; then it is complete. Default:
    /// 1000.
    #[serde(default = "MultilineConfig::default_timeout_ms")]
    #[schemars(range(min = 1))]
    pub timeout_ms: u64,
}

impl MultilineConfig {
    fn default_timeout_ms() -> u64 {
        1_000
    }
}

/// How `condition_pattern` ends a group of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MultilineMode {
    /// Lines that match belong to the group; the first that does not is after it.
    ContinueThrough,
    /// Lines that match belong to the group, and so does the first that does not.
    ContinuePast,
    /// Lines that do not match belong to the group; the first that does is after it.
    HaltBefore,
    /// Lines that do not match belong to the group, and so does the first that does.
    HaltWith,
}
