//! A proxy that injects faults into HTTP exchanges with an upstream. It only finds the ends of
//! messages, and chooses faults with a seeded generator.
//!
//! # Invariants
//! A fault other than [`Fault::CutBefore`], [`Fault::Portal`] and [`Fault::Status`] occurs after
//! the upstream has done its work.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::throttle::{Decision, Throttle};

/// A fault of an exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Reset before the upstream has seen the request.
    CutBefore,
    /// Reset instead of the response.
    CutAfter,
    /// The proxy sends nothing more, but keeps reading.
    HalfClose,
    /// The response ends in the middle of its body.
    Truncated,
    /// The body is replaced by random bytes, with the same status.
    Garbage,
    /// The body is replaced by a web page, under status 200.
    Html,
    /// A web page with status 200; the upstream does not see the request.
    Portal,
    /// This status; the upstream does not see the request.
    Status(u16),
    /// The response is delayed by this many milliseconds.
    Delay(u64),
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::CutBefore => "cut before",
            Self::CutAfter => "cut after",
            Self::HalfClose => "half-close",
            Self::Truncated => "truncated",
            Self::Garbage => "garbage",
            Self::Html => "html",
            Self::Portal => "portal",
            Self::Status(_) => "status",
            Self::Delay(_) => "delay",
        }
    }

    fn spares_upstream(self) -> bool {
        matches!(self, Self::CutBefore | Self::Portal | Self::Status(_))
    }
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    odds: Mutex<Vec<(Fault, f64)>>,
    /// Requests whose body contains this text get 400, if it is not empty.
    poison: Mutex<String>,
    throttle: Mutex<Option<Throttle>>,
    dice: Mutex<StdRng>,
    dead: AtomicBool,
    asked: AtomicU64,
    in_flight: AtomicUsize,
    struck: Mutex<BTreeMap<&'static str, u64>>,
}

/// A running proxy; it ends when dropped.
pub(crate) struct Chaos {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Chaos {
    /// Starts a proxy without faults on a free loopback port.
    pub(crate) async fn start(upstream: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            odds: Mutex::default(),
            poison: Mutex::default(),
            throttle: Mutex::default(),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            dead: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            struck: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Self { addr, shared, _tasks: tasks }
    }

    /// The API's base URL by way of the proxy.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}/api/public/", self.addr)
    }

    /// From now on these faults occur, each with its chance.
    pub(crate) fn set_fault_rates(&self, odds: &[(Fault, f64)]) {
        *self.shared.odds.lock().unwrap() = odds.to_vec();
    }

    /// From now on requests whose body contains this text get 400; none if it is empty.
    pub(crate) fn refuse(&self, text: &str) {
        text.clone_into(&mut self.shared.poison.lock().unwrap());
    }

    /// From now on this throttle is asked about each request; a refused one gets 429.
    pub(crate) fn set_throttle(&self, throttle: Throttle) {
        *self.shared.throttle.lock().unwrap() = Some(throttle);
    }

    /// What the throttle decided so far.
    pub(crate) fn decisions(&self) -> Vec<Decision> {
        self.shared.throttle.lock().unwrap().as_ref().map_or_else(Vec::new, |t| t.log().to_vec())
    }

    /// What a limit on requests at a time allows, in requests a second.
    pub(crate) fn allowed_at_a_time(&self) -> Option<f64> {
        self.shared.throttle.lock().unwrap().as_ref().and_then(Throttle::allowed_at_a_time)
    }

    /// Seconds since the throttle was first asked.
    pub(crate) fn throttled_for(&self) -> f64 {
        self.shared.throttle.lock().unwrap().as_ref().map_or(0.0, Throttle::now)
    }

    /// Whether every connection is reset at once.
    pub(crate) fn set_dead(&self, dead: bool) {
        self.shared.dead.store(dead, Ordering::Release);
    }

    /// Requests read from clients so far.
    pub(crate) fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Acquire)
    }

    /// Requests read and not yet answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// How often each fault occurred.
    pub(crate) fn struck(&self) -> BTreeMap<&'static str, u64> {
        self.shared.struck.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let shared = Arc::clone(&shared);
                // Errors of a client that disconnects are ignored.
                connections.spawn(async move { drop(serve(client, &shared).await) });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Counts one request in flight until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn up(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn serve(client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    if shared.dead.load(Ordering::Acquire) {
        return client.set_zero_linger();
    }
    let upstream = TcpStream::connect(shared.upstream).await?;
    upstream.set_nodelay(true)?;
    let (mut client, mut upstream) = (BufReader::new(client), BufReader::new(upstream));
    while let Some(request) = message(&mut client).await? {
        shared.asked.fetch_add(1, Ordering::AcqRel);
        let _counted = Counted::up(&shared.in_flight);
        if shared.dead.load(Ordering::Acquire) {
            return client.get_ref().set_zero_linger();
        }
        if request.holds(&shared.poison.lock().unwrap()) {
            page(400, br#"{"detail":"poisoned"}"#).send(client.get_mut()).await?;
            continue;
        }
        let refused = shared.throttle.lock().unwrap().as_mut().and_then(Throttle::ask);
        if let Some(headers) = refused {
            throttled(&headers).send(client.get_mut()).await?;
            continue;
        }
        let fault = draw(shared);
        let answer = if fault.is_some_and(Fault::spares_upstream) {
            Message::default()
        } else {
            let sent = tokio::time::Instant::now();
            request.send(upstream.get_mut()).await?;
            let Some(answer) = message(&mut upstream).await? else {
                return client.get_ref().set_zero_linger();
            };
            if let Some(throttle) = shared.throttle.lock().unwrap().as_mut() {
                throttle.served(sent.elapsed());
            }
            answer
        };
        if !spoil(fault, answer, &mut client).await? {
            return Ok(());
        }
    }
    Ok(())
}

fn draw(shared: &Shared) -> Option<Fault> {
    let mut roll: f64 = shared.dice.lock().unwrap().random();
    for (fault, chance) in shared.odds.lock().unwrap().iter() {
        if roll < *chance {
            *shared.struck.lock().unwrap().entry(fault.name()).or_default() += 1;
            return Some(*fault);
        }
        roll -= chance;
    }
    None
}

const PAGE: &[u8] = b"<!DOCTYPE html><html><body>Please log in to the network.</body></html>";

/// Forwards a response with the fault. Returns whether the connection stays open.
async fn spoil(
    fault: Option<Fault>,
    answer: Message,
    client: &mut BufReader<TcpStream>,
) -> io::Result<bool> {
    match fault {
        Some(Fault::CutBefore | Fault::CutAfter) => {
            client.get_ref().set_zero_linger()?;
            return Ok(false);
        }
        Some(Fault::HalfClose) => {
            client.get_mut().shutdown().await?;
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await?;
            return Ok(false);
        }
        Some(Fault::Truncated) => {
            let half = answer.body.len() / 2;
            client.get_mut().write_all(&answer.head).await?;
            client.get_mut().write_all(&answer.body[..half]).await?;
            return Ok(false);
        }
        Some(Fault::Garbage) => {
            Message { body: vec![0xff; answer.body.len()], ..answer }
                .send(client.get_mut())
                .await?;
        }
        Some(Fault::Html | Fault::Portal) => page(200, PAGE).send(client.get_mut()).await?,
        Some(Fault::Status(status)) => page(status, PAGE).send(client.get_mut()).await?,
        Some(Fault::Delay(millis)) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            answer.send(client.get_mut()).await?;
        }
        None => answer.send(client.get_mut()).await?,
    }
    Ok(true)
}

fn throttled(headers: &str) -> Message {
    let body = br#"{"detail":"Request was throttled."}"#.to_vec();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n"
    );
    Message { head: head.into_bytes(), body }
}

fn page(status: u16, body: &[u8]) -> Message {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Whatever\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n"
    );
    Message { head: head.into_bytes(), body: body.to_vec() }
}

/// A request or a response, as bytes.
#[derive(Debug, Default)]
struct Message {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    fn holds(&self, text: &str) -> bool {
        let text = text.as_bytes();
        !text.is_empty() && self.body.windows(text.len()).any(|window| window == text)
    }

    async fn send(&self, to: &mut TcpStream) -> io::Result<()> {
        to.write_all(&[self.head.as_slice(), self.body.as_slice()].concat()).await
    }
}

/// Reads one message; `None` at the end of the connection.
async fn message(from: &mut BufReader<TcpStream>) -> io::Result<Option<Message>> {
    let mut head = Vec::new();
    let mut length = 0;
    loop {
        let start = head.len();
        if from.read_until(b'\n', &mut head).await? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&head[start..]).to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        assert!(!line.starts_with("transfer-encoding:"), "only whole bodies are passed on");
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(Some(Message { head, body }))
}
