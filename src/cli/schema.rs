//! `schema`: the JSON Schema of pipeline files.

use clap::Args;

use super::output::{Exit, print};
use crate::config::pipeline_schema_text;

/// Print the JSON Schema of pipeline files.
#[derive(Debug, Args)]
pub(super) struct Schema {}

impl Schema {
    pub(super) fn run(self) -> Exit {
        print(&pipeline_schema_text())
    }
}
