//! `emulator`: runs the local User.com emulator.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::output::{Exit, eprint, fail};
use crate::emulator::{
    AssumeError, Assumption, Assumptions, Chance, EmulatorConfig, ErrorRate, FACTS, Faults,
    Latency, RateLimit, start,
};

/// Run the local User.com emulator.
#[derive(Debug, Args)]
#[command(after_help = help())]
pub(super) struct EmulatorCommand {
    /// Address to listen on; port 0 selects a free port
    #[arg(long, default_value = "127.0.0.1:8765")]
    listen: SocketAddr,
    /// The API key to accept
    #[arg(long)]
    api_key: String,
    /// SQLite file for its state; without it the state is in memory
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// JSON file with initial attributes, users and companies
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// Requests per second before it answers 429, for example `50`
    #[arg(long, value_name = "N[/s]")]
    rate_limit: Option<RateLimit>,
    /// Response time in milliseconds, for example `50`, or `50:10` with jitter
    #[arg(long, value_name = "MS[:JITTER]")]
    latency: Option<Latency>,
    /// Share of requests answered with an error, for example `0.1:503` or `0.1:500,502,503`
    #[arg(long, value_name = "P:CODE[,CODE]")]
    error_rate: Option<ErrorRate>,
    /// Share of requests whose connection is reset
    #[arg(long, value_name = "P")]
    reset_rate: Option<Chance>,
    /// Share of requests that get no response
    #[arg(long, value_name = "P")]
    hang_rate: Option<Chance>,
    /// Reject the API key, as if it were revoked
    #[arg(long)]
    revoked: bool,
    /// What the account does where the documentation of User.com does not say; repeatable. The
    /// facts are listed below
    #[arg(long, value_name = "FACT=VALUE")]
    assume: Vec<Assumption>,
}

/// The examples, and the facts with their values.
fn help() -> String {
    let mut text = "\
Examples:
  usercom-sink emulator --api-key secret
  usercom-sink emulator --api-key secret --rate-limit 10 --latency 50:20
  usercom-sink emulator --api-key secret --error-rate 0.1:500,503 --data account.db
  usercom-sink emulator --api-key secret --assume page_view_user=custom_id

Facts of --assume, with their values, the default first:"
        .to_owned();
    for (name, values, about) in FACTS {
        text.push_str(&format!("\n  {name:<22} {about}\n  {:<22} {values}", ""));
    }
    text
}

impl EmulatorCommand {
    pub(super) async fn run(self) -> Exit {
        let faults = self.faults();
        let assumptions = match self.assumptions() {
            Ok(assumptions) => assumptions,
            Err(error) => return fail(&error.to_string()),
        };
        let config = EmulatorConfig {
            listen: self.listen,
            api_key: self.api_key,
            data: self.data,
            seed: self.seed,
            faults,
            assumptions,
        };
        let emulator = match start(config).await {
            Ok(emulator) => emulator,
            Err(error) => return fail(&error.to_string()),
        };
        eprint(&format!("User.com emulator: {}\n", emulator.base_url()));
        if !self.listen.ip().is_loopback() {
            eprint(
                "warning: it listens on an address that other machines reach, and `/__admin/` asks \
                 for no key: anybody there can read and reset everything; listen on 127.0.0.1 \
                 unless that is meant\n",
            );
        }
        wait_for_signal().await;
        emulator.stop().await;
        Exit::Done
    }

    fn assumptions(&self) -> Result<Assumptions, AssumeError> {
        self.assume.iter().try_fold(Assumptions::default(), Assumptions::with)
    }

    fn faults(&self) -> Faults {
        let (latency_ms, jitter_ms) =
            self.latency.as_ref().map_or((0, 0), |latency| (latency.latency_ms, latency.jitter_ms));
        let mut faults = Faults {
            rate_limit: self.rate_limit.map(|limit| limit.0),
            latency_ms,
            jitter_ms,
            reset_rate: self.reset_rate.map_or(0.0, |chance| chance.0),
            hang_rate: self.hang_rate.map_or(0.0, |chance| chance.0),
            revoked: self.revoked,
            ..Faults::default()
        };
        if let Some(errors) = &self.error_rate {
            faults.error_rate = errors.rate;
            faults.error_codes.clone_from(&errors.codes);
        }
        faults
    }
}

/// Waits for SIGTERM or SIGINT.
pub(super) async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
