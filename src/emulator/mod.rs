//! User.com on localhost: a server that holds to what is known of the REST API, keeps its state in
//! SQLite, and fails on demand. Not a client, and it shares no type with one: an emulator that did
//! could not catch the client's mistakes.
//!
//! Invariant: nothing in here reads another room of the crate, save the clock.
//!
//! Where the real service's answer is unknown, the emulator takes the reading that shows a client's
//! mistake: a wrong-typed value is refused, not converted; an attribute that does not exist is
//! passed over and counted in `/__admin/stats`.

mod admin;
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

pub use faults::{Chance, ErrorRate, FaultError, Faults, Latency, RateLimit};

/// How long a stop waits for requests under way before it leaves them behind.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// What an emulator is started with.
#[derive(Clone)]
pub struct EmulatorConfig {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The key that requests must carry as `Authorization: Token KEY`.
    pub api_key: String,
    /// The SQLite file that keeps the state; none keeps it in memory. The request log and the
    /// counts of requests are in memory either way.
    pub data: Option<PathBuf>,
    /// A JSON file, `{"attributes": […], "events": […], "companies": […], "users": […]}`, each
    /// element a body of the API. It is read only when the state is empty.
    pub seed: Option<PathBuf>,
    /// The faults to begin with.
    pub faults: Faults,
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
            .finish()
    }
}

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The address is taken or not ours.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address asked for.
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
    /// Something in the seed file is wrong.
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
    /// Cancels the server's token when it goes.
    guard: DropGuard,
}

/// Starts an emulator on the current tokio runtime; it answers once this returns.
///
/// # Errors
///
/// When the address cannot be listened on, the data cannot be opened, the seed is bad, or a fault
/// is out of its range.
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
        token.clone(),
    ));
    tasks.spawn(server::serve(listener, state));
    tasks.close();
    Ok(Emulator { addr, tasks, guard: token.drop_guard() })
}

impl Emulator {
    /// The address it listens on, with the port it got.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://ADDR/api/public/`, what a client takes for its endpoint.
    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.addr, server::BASE_PATH)
    }

    /// Stops listening, cuts what hangs, and waits up to five seconds for the rest.
    pub async fn stop(self) {
        drop(self.guard);
        if tokio::time::timeout(STOP_DEADLINE, self.tasks.wait()).await.is_err() {
            tracing::warn!("emulator: stopped with requests still under way");
        }
    }
}
