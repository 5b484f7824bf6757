//! A local User.com: a server that implements the known REST API, keeps its state in SQLite, and
//! injects faults on demand.
//!
//! Where the response of the real service is unknown, the emulator is strict unless it is
//! configured to [assume](Assumptions) otherwise, to show mistakes of a client: a value of the
//! wrong type is rejected, not converted; an attribute that does not exist is ignored and counted
//! in
//! `/__admin/stats`.
//!
//! # Invariants
//! It uses no other module of the crate except the clock: an emulator that shared types with the
//! client could not catch the client's mistakes.

mod admin;
mod assume;
mod connection;
mod context;
mod faults;
mod fields;
mod profile;
mod reply;
mod routes;
mod seed;
mod server;
mod state;
mod store;
mod typing;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use assume::{AssumeError, Assumption, Assumptions, FACTS};
pub use faults::{Chance, ErrorRate, FaultError, Faults, Latency, RateLimit};

/// How long a stop waits for running requests.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Settings of an emulator.
#[derive(Clone)]
pub struct EmulatorConfig {
    /// The address to listen on; port 0 selects a free port.
    pub listen: SocketAddr,
    /// The key that requests must carry as `Authorization: Token KEY`.
    pub api_key: String,
    /// The SQLite file of the state; `None` keeps it in memory. The request log and the counts are
    /// always in memory.
    pub data: Option<PathBuf>,
    /// A JSON file, `{"attributes": […], "events": […], "companies": […], "users": […]}`, each
    /// element a request body of the API. It is read only if the state is empty.
    pub seed: Option<PathBuf>,
    /// The initial faults.
    pub faults: Faults,
    /// What the account does where the documentation does not say.
    pub assumptions: Assumptions,
}

impl EmulatorConfig {
    /// An emulator on a free port of this machine, in memory, without faults.
    pub fn local(api_key: impl Into<String>) -> Self {
        Self {
            listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            api_key: api_key.into(),
            data: None,
            seed: None,
            faults: Faults::default(),
            assumptions: Assumptions::default(),
        }
    }
}

impl fmt::Debug for EmulatorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatorConfig")
            .field("listen", &self.listen)
            .field("api_key", &"[redacted]")
            .field("data", &self.data)
            .field("seed", &self.seed)
            .field("faults", &self.faults)
            .field("assumptions", &self.assumptions)
            .finish()
    }
}

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The address is in use or not an address of this machine.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The configured address.
        listen: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The state cannot be opened.
    #[error("cannot open the emulator's data in {place}: {source}")]
    Data {
        /// The file, or `memory`.
        place: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The seed file cannot be read.
    #[error("cannot read the seed file {path}: {source}")]
    SeedFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The seed file has an invalid element.
    #[error("seed file {path}: {place}: {why}")]
    Seed {
        /// The file.
        path: PathBuf,
        /// Where in it, such as `users[3]`.
        place: String,
        /// The answer the API would give, or what the JSON parser says.
        why: String,
    },
    /// A fault is out of its range.
    #[error(transparent)]
    Fault(#[from] FaultError),
}

/// A running emulator. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Emulator {
    addr: SocketAddr,
    tasks: TaskTracker,
    /// Cancels the server's token on drop.
    guard: DropGuard,
}

/// Starts an emulator on the current tokio runtime. It accepts requests once this returns.
///
/// # Errors
///
/// If the address cannot be used, the data cannot be opened, the seed is invalid, or a fault is out
/// of its range.
pub async fn start(config: EmulatorConfig) -> Result<Emulator, EmulatorError> {
    config.faults.check()?;
    let place = config.data.as_ref().map_or("memory".into(), |path| path.display().to_string());
    let data_error = |source| EmulatorError::Data { place: place.clone(), source };
    let mut store = store::AccountStore::open(config.data.as_deref()).map_err(data_error)?;
    if let Some(path) = &config.seed
        && store.is_empty().map_err(data_error)?
    {
        seed::load_seed(&mut store, path)?;
    }
    let listen = config.listen;
    let listen_error = |source| EmulatorError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(listen_error)?;
    let addr = listener.local_addr().map_err(listen_error)?;
    let token = CancellationToken::new();
    let tasks = TaskTracker::new();
    let state = Arc::new(state::EmulatorState::new(
        addr,
        config.api_key,
        store,
        config.faults,
        config.assumptions,
        token.clone(),
    ));
    tasks.spawn(server::serve(listener, state));
    tasks.close();
    Ok(Emulator { addr, tasks, guard: token.drop_guard() })
}

impl Emulator {
    /// The address it listens on, with the actual port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://ADDR/api/public/`, the `endpoint` of a client.
    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.addr, server::BASE_PATH)
    }

    /// Stops listening, resets hanging connections, and waits up to five seconds for running
    /// requests.
    pub async fn stop(self) {
        drop(self.guard);
        if tokio::time::timeout(STOP_DEADLINE, self.tasks.wait()).await.is_err() {
            tracing::warn!("emulator: stopped while requests were still running");
        }
    }
}
