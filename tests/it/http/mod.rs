//! The `http` source: a folder of what it guarantees, and what those tests share.

mod abuse;
mod hostile;
pub(crate) mod process;
mod records;
mod segment;
mod tls;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usercom_sink::ack::Verdict;
use usercom_sink::config::source::HttpSourceConfig as Settings;
use usercom_sink::record::Record;
use usercom_sink::source::http::HttpSource;
use usercom_sink::source::{ReadMode, Source, SourceError};

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until a process listens.
pub(crate) fn await_port(port: u16) {
    for _ in 0..600 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no process listens on port {port}");
}

/// A source that runs in the test, and what it yields.
struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), SourceError>>,
    client: reqwest::Client,
}

impl Served {
    /// Serves; `more` is the rest of the source's table in TOML. Records go to `out`.
    async fn start(more: &str, out: mpsc::Sender<Record>) -> Self {
        let port = free_port();
        let settings: Settings =
            toml::from_str(&format!("address = '127.0.0.1:{port}'\n{more}")).unwrap();
        let source = HttpSource::new("web", settings, ReadMode::Follow).unwrap();
        let stop = CancellationToken::new();
        let token = stop.clone();
        #[expect(clippy::disallowed_methods, reason = "the test waits for it itself")]
        let ended = tokio::spawn(Box::new(source).run(out, token));
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { address, stop, ended, client: reqwest::Client::new() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        answer(self.client.post(self.url(path)).body(body)).await
    }

    async fn end(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.ended).await;
        ended.expect("it ends in time").unwrap().unwrap();
    }
}

/// Status and JSON of an answer.
async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let reply = request.send().await.unwrap();
    let status = reply.status().as_u16();
    let text = reply.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// What was yielded: bodies as JSON, where they are JSON.
type Seen = Arc<Mutex<Vec<Record>>>;

/// A pipeline that settles every record at once; bodies of `dead` are rejected, of `odd` errored.
fn settling() -> (mpsc::Sender<Record>, Seen) {
    let (out, mut records) = mpsc::channel::<Record>(64);
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    #[expect(clippy::disallowed_methods, reason = "it ends with its channel")]
    tokio::spawn(async move {
        while let Some(mut record) = records.recv().await {
            let ack = std::mem::replace(&mut record.ack, usercom_sink::ack::Ack::noop());
            let text = String::from_utf8_lossy(&record.body).into_owned();
            kept.lock().unwrap().push(record);
            ack.settle(match () {
                () if text.contains("\"odd\"") => Verdict::Errored,
                () if text.contains("\"dead\"") => Verdict::Rejected,
                () => Verdict::Delivered,
            });
        }
    });
    (out, seen)
}

fn bodies(seen: &Seen) -> Vec<Value> {
    let seen = seen.lock().unwrap();
    seen.iter().map(|r| serde_json::from_slice(&r.body).unwrap_or(Value::Null)).collect()
}

/// Sends bytes as they are and reads what comes back until the other side ends, or for a while.
fn raw(address: SocketAddr, bytes: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    // The other side may have had enough before the end.
    drop(stream.write_all(bytes));
    let mut text = Vec::new();
    drop(stream.read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}
