//! `schema`: prints the JSON Schema of pipeline files, or Fluvio's description of the connector.

use clap::Args;

use super::output::{Exit, print};
#[cfg(feature = "fluvio")]
use crate::config::connector::connector_package_text;
use crate::config::pipeline_schema_text;

/// Print the JSON Schema of pipeline files.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink schema > pipeline.schema.json")]
pub(super) struct SchemaCommand {
    /// Print Fluvio's Connector.toml instead
    #[arg(long)]
    connector: bool,
}

impl SchemaCommand {
    pub(super) fn run(self) -> Exit {
        match self.connector {
            #[cfg(feature = "fluvio")]
            true => print(&connector_package_text()),
            #[cfg(not(feature = "fluvio"))]
            true => super::output::fail(super::connector::MISSING),
            false => print(&pipeline_schema_text()),
        }
    }
}
