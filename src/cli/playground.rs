//! `playground`: opens the playground on a loopback port, without a pipeline that runs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::load::load_texts;
use super::output::{Exit, fail, print};
use crate::api::{AccessRules, ApiState, PlaygroundText, bind};
use crate::config::{ProcessEnvironment, SourceText, Style};
use crate::pipeline::{DryPlayground, Shutdown};

/// Try a mapping in the browser.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  usercom-sink playground\n  \
                        usercom-sink playground -c pipeline.toml --port 8687")]
pub(super) struct PlaygroundCommand {
    /// Pipeline file to begin with; several files are merged
    #[arg(short, long = "config", value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Port on the loopback address; 0 lets the system choose
    #[arg(long, default_value_t = 0)]
    port: u16,
}

impl PlaygroundCommand {
    pub(super) async fn run(self, style: Style) -> Exit {
        let files = match self.files(style) {
            Ok(files) => files,
            Err(exit) => return exit,
        };
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port);
        let bound = match bind(listen).await {
            Ok(bound) => bound,
            Err(error) => return fail(&format!("cannot listen on {listen}: {error}")),
        };
        let printed = print(&format!("http://{}/playground\n", bound.address()));
        if printed != Exit::Done {
            return printed;
        }
        let state = ApiState {
            service: None,
            playground: Arc::new(DryPlayground::new(Arc::new(RwLock::new(files)))),
            access: Arc::new(AccessRules::new(listen.ip(), None, &[])),
        };
        let stop = CancellationToken::new();
        let shutdown = Shutdown { graceful: stop.clone(), now: CancellationToken::new() };
        tokio::select! {
            () = bound.serve(state, stop) => Exit::Done,
            _ = super::run::wait_for_shutdown(shutdown) => Exit::Done,
        }
    }

    /// The files as they are shown: with every secret covered, also where they have faults.
    fn files(&self, style: Style) -> Result<Vec<PlaygroundText>, Exit> {
        let texts: Result<Vec<_>, _> =
            self.config.iter().map(|path| SourceText::read(path)).collect();
        let texts = texts.map_err(|report| {
            super::output::eprint(&report.render(style));
            Exit::BadConfig
        })?;
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let report = match load_texts(&texts, &ProcessEnvironment) {
            Ok(loaded) => loaded.warnings,
            Err(report) => report,
        };
        let shown = |(name, text): (&str, &str)| PlaygroundText {
            name: name.to_owned(),
            text: text.to_owned(),
        };
        Ok(report.files().map(shown).collect())
    }
}
