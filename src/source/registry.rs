//! Builds a source from its settings.
//!
//! # Invariants
//!
//! Nothing is opened or read before [`Source::run`].

use bytes::Bytes;

use super::decode::{Decoded, Decoder};
use super::file::FileSource;
use super::http::HttpSource;
use super::stdin::StdinSource;
use super::{SharedCheckpoints, Source};
use crate::config::source::{Decoding, SourceConfig};

/// Whether a source waits for more data at the end of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// It waits for more until it is stopped.
    Follow,
    /// It ends at the present end of its input.
    Once,
}

/// Settings with which a source cannot work.
#[derive(Debug, thiserror::Error)]
#[error("source `{source_name}`: {why}")]
pub struct BuildError {
    /// Which source.
    pub source_name: String,
    /// What is wrong, for the writer of the pipeline file.
    pub why: String,
}

/// Builds the source called `name`.
///
/// # Errors
///
/// Settings that contradict each other or do not parse (patterns, separators).
pub fn build(
    name: &str,
    config: &SourceConfig,
    mode: ReadMode,
    checkpoints: SharedCheckpoints,
) -> Result<Box<dyn Source>, BuildError> {
    let built = match config {
        SourceConfig::File(config) => {
            FileSource::new(name, config.clone(), mode, checkpoints).map(boxed)
        }
        SourceConfig::Stdin(config) => StdinSource::new(config).map(boxed),
        SourceConfig::Http(config) => HttpSource::new(name, config.clone(), mode).map(boxed),
        #[cfg(feature = "vector")]
        SourceConfig::Vector(config) => {
            super::vector::VectorSource::new(name, config.clone(), mode).map(boxed)
        }
        #[cfg(not(feature = "vector"))]
        SourceConfig::Vector(_) => Err("build with the cargo feature `vector`".to_owned()),
        #[cfg(feature = "fluvio")]
        SourceConfig::Fluvio(config) => {
            super::fluvio::FluvioSource::new(name, config.clone(), mode, checkpoints).map(boxed)
        }
        #[cfg(not(feature = "fluvio"))]
        SourceConfig::Fluvio(_) => Err("build with the cargo feature `fluvio`".to_owned()),
        #[cfg(feature = "kafka")]
        SourceConfig::Kafka(config) => {
            super::kafka::KafkaSource::new(name, config.clone(), mode).map(boxed)
        }
        #[cfg(not(feature = "kafka"))]
        SourceConfig::Kafka(_) => Err("build with the cargo feature `kafka`".to_owned()),
    };
    built.map_err(|why| BuildError { source_name: name.to_owned(), why })
}

/// The decoder for the lines or messages of a source.
///
/// # Errors
///
/// Settings of the decoding that cannot work.
pub fn decoder(config: &SourceConfig) -> Result<Decoder, String> {
    let zone = config.timezone();
    match config {
        SourceConfig::File(file) => Decoder::bounded(&file.decoding, file.max_line_bytes, zone)?
            .with_multiline(file.multiline.as_ref(), file.max_line_bytes),
        SourceConfig::Stdin(stdin) => {
            Decoder::bounded(&stdin.decoding, stdin.max_line_bytes, zone)?
                .with_multiline(stdin.multiline.as_ref(), stdin.max_line_bytes)
        }
        SourceConfig::Http(http) => Decoder::in_zone(&http.decoding, zone),
        SourceConfig::Fluvio(fluvio) => Decoder::in_zone(&fluvio.decoding, zone),
        SourceConfig::Kafka(kafka) => Decoder::in_zone(&kafka.decoding, zone),
        // Its events are structured values; as text they are JSON.
        SourceConfig::Vector(_) => Decoder::new(&Decoding::default()),
    }
}

/// The records of a text, as the source would read it: lines, or one message.
///
/// # Errors
///
/// As [`decoder`].
pub fn decode_text(config: &SourceConfig, text: &Bytes) -> Result<Vec<Decoded>, String> {
    let decoder = decoder(config)?;
    Ok(match config {
        SourceConfig::Fluvio(_) | SourceConfig::Kafka(_) => decoder.message(text),
        _ => decoder.lines(text),
    })
}

fn boxed(source: impl Source + 'static) -> Box<dyn Source> {
    Box::new(source)
}
