//! A scripted HTTP server over plain TCP: it shares no code with the client and can send invalid
//! HTTP.
//!
//! A test gives a function from request to [`Answer`]. [`usual`] is the default: it accepts
//! everything and stores nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

/// The largest request body, in bytes.
const MAX_BODY: usize = 16 << 20;

/// A received request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// When its body was read.
    pub(crate) at: Instant,
    pub(crate) method: String,
    /// Path and query after `/api/public/`, as sent.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path.contains(path)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The response to a request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A complete response; the connection stays open.
    Http { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// The same, then the connection is closed after this time without notice.
    ThenClose(Box<Answer>, Duration),
    /// These bytes, then these repeatedly until the client disconnects, at most this many times.
    Endless { head: Vec<u8>, again: Vec<u8>, times: usize },
    /// These bytes, each part after a pause; then the connection stays open or is closed.
    Raw { parts: Vec<(Duration, Vec<u8>)>, then: Connection },
    /// No response; the connection is closed at once.
    Close,
}

/// What becomes of a connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    StaysOpen,
    IsClosed,
}

/// An answer of the API.
pub(crate) fn json(status: u16, body: &str) -> Answer {
    answer(status, &[("Content-Type", "application/json")], body)
}

/// Any answer.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Answer::Http { status, headers, body: body.as_bytes().to_vec() }
}

/// A web page.
pub(crate) fn page(status: u16) -> Answer {
    answer(status, &[("Content-Type", "text/html")], "<html><h1>Not here</h1></html>")
}

/// The response of a User.com that accepts everything and stores nothing.
pub(crate) fn usual(asked: &Asked) -> Answer {
    let is_list = ["attributes/", "events/", "ping_hits/"]
        .iter()
        .any(|end| asked.path.split('?').next().unwrap_or_default().ends_with(end));
    match asked.method.as_str() {
        "GET" if is_list => json(200, r#"{"count":0,"next":null,"previous":null,"results":[]}"#),
        "GET" => json(200, r#"{"id":1,"custom_id":"u","user_key":"k"}"#),
        _ => json(201, r#"{"id":1,"created":true}"#),
    }
}

type Script = dyn Fn(&Asked) -> Answer + Send + Sync;

/// The server. It ends with the test's process.
pub(crate) struct Stub {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Stub {
    pub(crate) fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (shared, script): (_, Arc<Script>) = (Arc::clone(&seen), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, script) = (Arc::clone(&shared), Arc::clone(&script));
                thread::spawn(move || serve(&stream, &seen, &*script));
            }
        });
        Self { addr, seen }
    }

    /// The base URL of its API.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}/api/public/", self.addr)
    }

    /// Every request so far, in the order of arrival.
    pub(crate) fn seen(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().clone()
    }

    /// Requests with this method and path.
    pub(crate) fn asked(&self, method: &str, path: &str) -> Vec<Asked> {
        self.seen().into_iter().filter(|asked| asked.is(method, path)).collect()
    }
}

fn serve(stream: &TcpStream, seen: &Mutex<Vec<Asked>>, script: &Script) {
    let mut input = BufReader::new(stream);
    while let Some(asked) = read(&mut input) {
        seen.lock().unwrap().push(asked.clone());
        if !write(stream, script(&asked)) {
            drop(stream.shutdown(Shutdown::Both));
            return;
        }
    }
}

fn read(input: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let path = target.strip_prefix("/api/public/").unwrap_or(&target).to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap()).min(MAX_BODY);
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let at = Instant::now();
    Some(Asked { at, method, path, headers, body })
}

/// Writes a response. Returns whether the connection stays open.
fn write(mut stream: &TcpStream, answer: Answer) -> bool {
    match answer {
        Answer::Http { status, headers, body } => {
            let mut head = format!("HTTP/1.1 {status} X\r\n");
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            if status != 204 {
                head.push_str(&format!("Content-Length: {}\r\n", body.len()));
            }
            head.push_str("\r\n");
            let bytes = [head.as_bytes(), &body].concat();
            stream.write_all(&bytes).is_ok()
        }
        Answer::ThenClose(first, after) => {
            let _ = write(stream, *first);
            thread::sleep(after);
            false
        }
        Answer::Endless { head, again, times } => {
            let mut goes_on = stream.write_all(&head).is_ok();
            for _ in 0..times {
                goes_on = goes_on && stream.write_all(&again).is_ok();
            }
            false
        }
        Answer::Raw { parts, then } => {
            for (pause, bytes) in parts {
                thread::sleep(pause);
                if stream.write_all(&bytes).is_err() {
                    return false;
                }
            }
            then == Connection::StaysOpen
        }
        Answer::Close => false,
    }
}
