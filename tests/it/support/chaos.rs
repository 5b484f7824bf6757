//! A connection that misbehaves: a proxy on loopback that spoils some of the exchanges it carries.
//!
//! It carries one exchange after the other on each connection, and decides for each by dice with a
//! seed what becomes of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How badly it behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chaos {
    /// The share of exchanges that are spoilt.
    pub(crate) chance: f64,
    pub(crate) seed: u64,
}

/// What becomes of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Whole,
    /// Late by a few hundred milliseconds.
    Delayed,
    /// The connection is cut before the request is passed on.
    CutBefore,
    /// The connection is cut once the request has been carried out.
    CutAfter,
    /// The request is carried out; the answering half of the connection is closed without a word.
    HalfClosed,
    /// The answer's head is whole, its body is cut short.
    Truncated,
    /// The answer's body is noise.
    Garbled,
    /// The answer's body is a page of HTML.
    Html,
    /// Somebody before the server answers, with 502 and a page of HTML.
    Gateway,
}

const SPOILT: [Fate; 8] = [
    Fate::Delayed,
    Fate::CutBefore,
    Fate::CutAfter,
    Fate::HalfClosed,
    Fate::Truncated,
    Fate::Garbled,
    Fate::Html,
    Fate::Gateway,
];

type Struck = Arc<Mutex<BTreeMap<Fate, u64>>>;

/// A proxy in front of one server.
pub(crate) struct Proxy {
    addr: SocketAddr,
    struck: Struck,
    tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn open(server: SocketAddr, chaos: Chaos) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let struck = Struck::default();
        let mut tasks = JoinSet::new();
        let counts = Arc::clone(&struck);
        tasks.spawn(async move {
            let dice = Arc::new(Mutex::new(StdRng::seed_from_u64(chaos.seed)));
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (dice, counts) = (Arc::clone(&dice), Arc::clone(&counts));
                connections.spawn(async move {
                    // However it ends, the client sees a connection that ended.
                    carry(client, server, || {
                        let fate = draw(&mut *dice.lock().unwrap(), chaos.chance);
                        *counts.lock().unwrap().entry(fate).or_default() += 1;
                        fate
                    })
                    .await
                    .ok();
                });
            }
        });
        Self { addr, struck, tasks }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends it; how often it did what.
    pub(crate) async fn close(mut self) -> BTreeMap<Fate, u64> {
        self.tasks.shutdown().await;
        self.struck.lock().unwrap().clone()
    }
}

fn draw(dice: &mut StdRng, chance: f64) -> Fate {
    if dice.random_bool(chance) { SPOILT[dice.random_range(0..SPOILT.len())] } else { Fate::Whole }
}

/// Carries exchanges until one side is done or the fate says so.
async fn carry(
    mut client: TcpStream,
    server: SocketAddr,
    draw: impl Fn() -> Fate,
) -> std::io::Result<()> {
    loop {
        let Some(request) = Message::read(&mut client).await? else {
            return Ok(());
        };
        let fate = draw();
        match fate {
            Fate::CutBefore => return Ok(()),
            Fate::Gateway => {
                let page = "<html><body>Bad gateway</body></html>";
                let answer = Message {
                    head: format!(
                        "HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n",
                        page.len()
                    ),
                    body: page.into(),
                };
                answer.write(&mut client).await?;
                continue;
            }
            Fate::Delayed => tokio::time::sleep(Duration::from_millis(300)).await,
            _ => {}
        }
        let mut upstream = TcpStream::connect(server).await?;
        request.write(&mut upstream).await?;
        let Some(mut answer) = Message::read(&mut upstream).await? else {
            return Ok(());
        };
        match fate {
            Fate::CutAfter => return Ok(()),
            Fate::HalfClosed => {
                client.shutdown().await?;
                // The other half stays open until the client has had enough.
                let mut rest = [0; 64];
                while client.read(&mut rest).await? > 0 {}
                return Ok(());
            }
            Fate::Truncated => {
                answer.body.truncate(answer.body.len() / 2);
                return answer.write(&mut client).await;
            }
            Fate::Garbled => answer.body.iter_mut().for_each(|byte| *byte = byte.wrapping_add(131)),
            Fate::Html => {
                let page = b"<html><body>Sign in to the network</body></html>";
                for (n, byte) in answer.body.iter_mut().enumerate() {
                    *byte = page[n % page.len()];
                }
            }
            _ => {}
        }
        answer.write(&mut client).await?;
    }
}

/// A request or an answer, with a body of known length.
struct Message {
    head: String,
    body: Vec<u8>,
}

impl Message {
    /// `None` where the connection ends before a message begins.
    async fn read(from: &mut TcpStream) -> std::io::Result<Option<Self>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match from.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) if head.is_empty() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let head = String::from_utf8(head).map_err(std::io::Error::other)?;
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(Ok(0), |(_, value)| value.trim().parse())
            .map_err(std::io::Error::other)?;
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
        Ok(Some(Self { head, body }))
    }

    async fn write(&self, to: &mut TcpStream) -> std::io::Result<()> {
        to.write_all(self.head.as_bytes()).await?;
        to.write_all(&self.body).await?;
        to.flush().await
    }
}
