//! The same answers in other bytes.

use std::io::Write;
use std::time::Duration;

use super::{ALL, Row, WRITES, row, usual};
use crate::account::behaviour::{Behaviour, Effect, Route, When};
use crate::support::stub::{Answer, Connection, answer};

/// All rows of this file.
pub(super) fn rows() -> Vec<Row> {
    [encodings(), heads(), slow(), broken(), bombs()].into_iter().flatten().collect()
}

fn encoded(encode: fn(u16, &str) -> Answer) -> Behaviour {
    Behaviour { encode: Some(encode), ..usual() }
}

fn bytes(status: u16, encoding: Option<&str>, body: Vec<u8>) -> Answer {
    let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    headers.extend(encoding.map(|name| ("Content-Encoding".to_owned(), name.to_owned())));
    Answer::Http { status, headers, body }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(unit).collect()
}

fn encodings() -> Vec<Row> {
    vec![
        row(
            "bodies are gzip, declared",
            encoded(|status, text| bytes(status, Some("gzip"), gzip(text.as_bytes()))),
        ),
        row(
            "bodies are gzip, not declared",
            encoded(|status, text| bytes(status, None, gzip(text.as_bytes()))),
        ),
        row(
            "bodies are declared identity",
            encoded(|status, text| bytes(status, Some("identity"), text.into())),
        ),
        row(
            "bodies are UTF-16, little end first",
            encoded(|status, text| bytes(status, None, utf16(text, u16::to_le_bytes))),
        ),
        row(
            "bodies are UTF-16, big end first",
            encoded(|status, text| bytes(status, None, utf16(text, u16::to_be_bytes))),
        ),
        row(
            "bodies are declared HTML",
            encoded(|status, text| answer(status, &[("Content-Type", "text/html")], text)),
        ),
        row("bodies are declared nothing", encoded(|status, text| answer(status, &[], text))),
        row("bodies have blanks and line ends around them", {
            encoded(|status, text| answer(status, &[], &format!("\r\n\t {text}\r\n\r\n")))
        }),
        row(
            "writes are answered in deflate and brotli",
            usual().on(WRITES, When::Every(3), Effect::Applied, |status, _| {
                bytes(status, Some("br"), vec![0x0b, 0x02, 0x80, 0x7b, 0x7d, 0x03])
            }),
        ),
        row(
            "each fifth answer is declared gzip and is not",
            usual().on(ALL, When::Every(5), Effect::Applied, |status, body| {
                bytes(status, Some("gzip"), body.to_string().into())
            }),
        ),
    ]
}

fn raw(head: &str, body: &str, then: Connection) -> Answer {
    let text = format!("{head}{body}");
    Answer::Raw { parts: vec![(Duration::ZERO, text.into_bytes())], then }
}

fn heads() -> Vec<Row> {
    use Connection::{IsClosed, StaysOpen};
    vec![
        row(
            "HTTP/1.0 without a length",
            encoded(|status, text| raw(&format!("HTTP/1.0 {status} OK\r\n\r\n"), text, IsClosed)),
        ),
        row(
            "HTTP/1.1 without a length",
            encoded(|status, text| raw(&format!("HTTP/1.1 {status} OK\r\n\r\n"), text, IsClosed)),
        ),
        row(
            "102 and 103 before each answer",
            encoded(|status, text| {
                let head = format!(
                    "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: \
                     </x>\r\n\r\nHTTP/1.1 {status} OK\r\nContent-Length: {}\r\n\r\n",
                    text.len()
                );
                raw(&head, text, StaysOpen)
            }),
        ),
        row(
            "chunks with extensions and trailers",
            encoded(|status, text| {
                let head = format!("HTTP/1.1 {status} OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                let (first, second) = text.split_at(text.len() / 2);
                let mut chunks = String::new();
                for part in [first, second].iter().filter(|part| !part.is_empty()) {
                    chunks += &format!("{:X};x=\"y\"\r\n{part}\r\n", part.len());
                }
                raw(&head, &format!("{chunks}0\r\nX-Trailer: 1\r\n\r\n"), StaysOpen)
            }),
        ),
        row(
            "no reason, names in odd case, a length twice",
            encoded(|status, text| {
                let n = text.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\ncONTENT-lENGTH: {n}\r\nContent-Length: {n}\r\nX: \u{e9}\r\n\r\n"
                );
                raw(&head, text, StaysOpen)
            }),
        ),
        row(
            "a header of 60 KiB and 90 small ones",
            encoded(|status, text| {
                let mut head =
                    format!("HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n", text.len());
                head += &format!("X-Large: {}\r\n", "x".repeat(60 << 10));
                (0..90).for_each(|n| head += &format!("X-{n}: {n}\r\n"));
                raw(&(head + "\r\n"), text, StaysOpen)
            }),
        ),
        row(
            "each ninth answer has 150 headers",
            usual().on(ALL, When::Every(9), Effect::Applied, |status, body| {
                let text = body.to_string();
                let mut head =
                    format!("HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n", text.len());
                (0..150).for_each(|n| head += &format!("X-{n}: {n}\r\n"));
                raw(&(head + "\r\n"), &text, StaysOpen)
            }),
        ),
        row(
            "each ninth answer has a folded header",
            usual().on(ALL, When::Every(9), Effect::Applied, |status, body| {
                let text = body.to_string();
                let head = format!(
                    "HTTP/1.1 {status} OK\r\nX-Folded: a\r\n  b\r\nContent-Length: {}\r\n\r\n",
                    text.len()
                );
                raw(&head, &text, StaysOpen)
            }),
        ),
        row(
            "connections are closed after each answer, without a word",
            encoded(|status, text| {
                let head =
                    format!("HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n\r\n", text.len());
                raw(&head, text, IsClosed)
            }),
        ),
        row(
            "connections are closed after each answer, as said",
            encoded(|status, text| {
                let head = format!(
                    "HTTP/1.1 {status} OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    text.len()
                );
                raw(&head, text, IsClosed)
            }),
        ),
    ]
}

/// The answer in pieces of one byte, each after a pause.
fn by_byte(status: u16, text: &str, pause: Duration) -> Answer {
    let head = format!("HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n\r\n", text.len());
    let mut parts = vec![(Duration::ZERO, head.into_bytes())];
    parts.extend(text.bytes().map(|byte| (pause, vec![byte])));
    Answer::Raw { parts, then: Connection::StaysOpen }
}

fn slow() -> Vec<Row> {
    vec![
        row(
            "each fifth answer comes byte by byte",
            usual().on(ALL, When::Every(5), Effect::Applied, |status, body| {
                by_byte(status, &body.to_string(), Duration::from_millis(5))
            }),
        ),
        row(
            "some writes are answered too slowly",
            usual().on(WRITES, When::Every(25), Effect::Applied, |status, body| {
                by_byte(status, &format!("{body}{}", " ".repeat(100)), Duration::from_millis(100))
            }),
        ),
        row(
            "some heads come too slowly",
            usual().on(WRITES, When::Every(25), Effect::Applied, |_, _| {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                let parts =
                    head.bytes().map(|byte| (Duration::from_millis(100), vec![byte])).collect();
                Answer::Raw { parts, then: Connection::StaysOpen }
            }),
        ),
    ]
}

fn broken() -> Vec<Row> {
    let every = |name, n, make: fn(u16, &str) -> Answer| {
        row(
            name,
            usual().on(ALL, When::Every(n), Effect::Applied, move |status, body| {
                make(status, &body.to_string())
            }),
        )
    };
    vec![
        every("each ninth length is too great", 9, |status, text| {
            let head =
                format!("HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n\r\n", text.len() + 9);
            raw(&head, text, Connection::IsClosed)
        }),
        every("each ninth length is too small", 9, |status, text| {
            let head =
                format!("HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n\r\n", text.len() / 2);
            raw(&head, text, Connection::StaysOpen)
        }),
        every("each ninth answer comes twice", 9, |status, text| {
            let one =
                format!("HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            raw(&one, &one, Connection::StaysOpen)
        }),
        every("each ninth chunk is no number", 9, |status, text| {
            let head = format!("HTTP/1.1 {status} OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n");
            raw(&head, text, Connection::IsClosed)
        }),
        every("each ninth length differs from itself", 9, |status, text| {
            let head =
                format!("HTTP/1.1 {status} OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n");
            raw(&head, text, Connection::IsClosed)
        }),
        every("each ninth answer asks for another protocol", 9, |_, _| {
            raw(
                "HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
                "",
                Connection::IsClosed,
            )
        }),
    ]
}

fn bombs() -> Vec<Row> {
    vec![row(
        "each ninth answer is a gzip bomb",
        usual().on(&[Route::Upsert, Route::UserRead], When::Every(9), Effect::Applied, |_, _| {
            bytes(200, Some("gzip"), gzip(&vec![b' '; 8 << 20]))
        }),
    )]
}
