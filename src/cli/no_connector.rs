//! `connector` in a build without the feature `fluvio`: says which feature it needs.

use std::ffi::OsString;

use clap::Args;

use super::output::{Exit, fail};
use crate::config::Style;

/// What a build without the connector answers.
pub(super) const MISSING: &str =
    "this build has no connector: build with the cargo feature `fluvio`";

/// Takes every argument of the real command.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink connector --config connector.yaml")]
pub(super) struct ConnectorCommand {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
}

impl ConnectorCommand {
    #[expect(clippy::unused_async, reason = "the command of a full build is asynchronous")]
    pub(super) async fn run(self, _: Style) -> Exit {
        fail(MISSING)
    }
}
