//! What strangers send: torn frames, slow ones, bombs. The source stays up, within its limits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};
use tokio::io::AsyncReadExt;

use super::{Served, answer, bodies, raw, settling};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_rejected() {
    // Whatever comes over the wire, the next request is answered and no record appears.
    let (out, seen) = settling();
    let served = Served::start("read_timeout_secs = 1\nmax_body_bytes = 5000", out).await;
    let address = served.address;
    let long_head =
        format!("POST /v1/records HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let frames: Vec<(&[u8], &str)> = vec![
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", ""),
        (b"\r\n\r\n\r\n", ""),
        (b"GET\r\n\r\n", "400"),
        (b"POST /v1/records HTTP/9.9\r\n\r\n", ""),
        (b"POST /v1/records HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", "400"),
        (
            b"POST /v1/records HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "400",
        ),
        (b"POST /v1/records HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999\r\n\r\n{}", "413"),
        (
            b"POST /v1/records HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "400",
        ),
        (b"POST /v1/records HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{\"half\":", "408"),
        (b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{\"half\":", "408"),
        (b"POST /v1/records HTTP/1.1\r\nhost: x\r\nhalf-a-head", ""),
        (long_head.as_bytes(), "431"),
        (b"POST /%ff%00/../v1/records HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}", "404"),
        (b"POST * HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}", "40"),
    ];
    for (frame, status) in frames {
        let owned = frame.to_vec();
        let reply = tokio::task::spawn_blocking(move || raw(address, &owned, SOON)).await.unwrap();
        let shown = String::from_utf8_lossy(&frame[..frame.len().min(80)]);
        let expected =
            if status.is_empty() { "HTTP/1.1 4".to_owned() } else { format!("HTTP/1.1 {status}") };
        assert!(
            reply.is_empty() && status.is_empty() || reply.starts_with(&expected),
            "{shown:?}: {reply:?}"
        );
    }
    assert!(bodies(&seen).is_empty());
    assert_eq!(served.post("/v1/records", "{}").await.0, 200);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_senders_are_disconnected() {
    // Connections that say nothing, or never end their head, are closed; others then get in.
    let (out, _) = settling();
    let served = Served::start("read_timeout_secs = 1\nmax_connections = 4", out).await;
    let address = served.address;
    let idle: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
    for (n, mut stream) in idle.iter().enumerate() {
        stream.write_all(&b"POST /v1/records HT"[..n * 5]).unwrap();
    }
    let answered = tokio::time::timeout(Duration::from_secs(10), served.post("/v1/records", "{}"));
    assert_eq!(answered.await.expect("a place becomes free").0, 200);
    for mut stream in idle {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut rest = Vec::new();
        // Closed, or answered and closed; not left open.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    served.end().await;
}

/// 64 MiB of blanks, packed.
async fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let blanks = vec![b' '; 64 << 20];
    let (mut gzip, mut zstd) = (Vec::new(), Vec::new());
    GzipEncoder::new(&blanks[..]).read_to_end(&mut gzip).await.unwrap();
    ZstdEncoder::new(&blanks[..]).read_to_end(&mut zstd).await.unwrap();
    vec![("gzip", gzip), ("zstd", zstd)]
}

/// The memory of this process that is in use, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decompression_bombs_are_rejected_within_bounds() {
    // A hundred bombs at once are refused, none of them inflated beyond the limit.
    let (out, seen) = settling();
    let served = Served::start("max_body_bytes = 1048576", out).await;
    let bombs = bombs().await;
    let before = resident();
    let requests = (0..100).map(|n| {
        let (coding, body) = &bombs[n % bombs.len()];
        let request = served.client.post(served.url("/v1/records")).body(body.clone());
        answer(request.header("content-encoding", *coding))
    });
    let answered = futures::future::join_all(requests).await;
    for (status, reply) in &answered {
        assert!(matches!(status, 413 | 503), "{status}: {reply}");
    }
    assert!(answered.iter().any(|(status, _)| *status == 413));
    let grown = resident().saturating_sub(before);
    assert!(grown < 256 << 20, "grown by {grown} bytes");
    assert!(bodies(&seen).is_empty());
    assert_eq!(served.post("/v1/records", "{}").await.0, 200);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_with_too_many_records_is_rejected() {
    // A body of very many tiny records is refused whole, before any of it is taken.
    let (out, seen) = settling();
    let served = Served::start("", out).await;
    let array = format!("[{}1]", "1,".repeat(100_000));
    assert_eq!(served.post("/v1/records", array).await.0, 413);
    assert_eq!(served.post("/v1/records", "1\n".repeat(100_001)).await.0, 413);
    assert!(bodies(&seen).is_empty());
    served.end().await;
}
