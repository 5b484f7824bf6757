//! Whatever connects: memory stays bounded, nothing panics, and good clients are served meanwhile.

use std::io::Write;
use std::process::Stdio;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use usercom_sink::emulator::Faults;

use super::*;
use crate::support::{EmulatorAccount, KEY, TestDir, binary};

/// One gRPC frame over HTTP/2 by hand would need a client of its own: a proper one is used where a
/// body must be well framed, and raw bytes where it must not.
async fn garbage(port: u16, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    stream.write_all(bytes).await.ok();
    let mut rest = [0; 1024];
    let read = stream.read(&mut rest);
    tokio::time::timeout(Duration::from_secs(1), read).await.ok();
}

/// A request that is well begun and never ends.
async fn stalled(port: u16) {
    let body = futures::stream::iter([Ok::<_, std::io::Error>(vec![0_u8, 0, 0, 0xff, 0xff])]);
    let body = body.chain(futures::stream::pending());
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let answer = client
        .post(format!("http://127.0.0.1:{port}/vector.Vector/PushEvents"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(reqwest::Body::wrap_stream(body))
        .send()
        .await;
    let code = answer.unwrap().headers()["grpc-status"].to_str().unwrap().parse::<i32>().unwrap();
    assert_eq!(tonic::Code::from(code), tonic::Code::DeadlineExceeded);
}

/// A request whose one frame says it is gzip and inflates beyond every limit.
async fn bomb(port: u16, inflated: usize) -> Option<tonic::Code> {
    let mut packed = Vec::new();
    let mut gzip = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..inflated >> 20 {
        gzip.write_all(&zeros).unwrap();
    }
    gzip.finish().unwrap();
    let mut frame = vec![1];
    frame.extend(u32::try_from(packed.len()).unwrap().to_be_bytes());
    frame.extend(packed);
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let answer = client
        .post(format!("http://127.0.0.1:{port}/vector.Vector/PushEvents"))
        .header("content-type", "application/grpc")
        .header("grpc-encoding", "gzip")
        .header("te", "trailers")
        .body(frame)
        .send()
        .await
        .ok()?;
    let code = answer.headers().get("grpc-status")?.to_str().ok()?.parse::<i32>().ok()?;
    Some(tonic::Code::from(code))
}

fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_client_is_served_among_two_hundred_bad_ones() {
    // Malformed frames, half bodies, large bodies and a bomb of 1 GiB cost bounded memory, leave
    // with no code on which Vector would drop events, and do not keep a good client waiting for
    // long.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let port = free_port().await;
    let dir = place.path().display();
    let text = format!(
        r#"
data_dir = "{dir}/data"
[sources.vector]
type = "vector"
address = "127.0.0.1:{port}"
read_timeout_secs = 5
[sinks.crm]
type = "usercom"
inputs = ["vector"]
endpoint = "{}"
api_key = "{KEY}"
preset = "segment"
"#,
        account.endpoint()
    );
    let config = place.write("pipeline.toml", &text);
    let mut program = binary()
        .args(["run", "-c", config.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(connect(port).await);

    let mut bad = JoinSet::new();
    for _ in 0..20 {
        bad.spawn(stalled(port));
    }
    for n in 0..200_usize {
        bad.spawn(async move {
            match n % 4 {
                0 => garbage(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await,
                1 => {
                    garbage(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff")
                        .await
                }
                2 => garbage(port, &vec![0x16; 2000]).await,
                _ => {
                    garbage(
                        port,
                        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
                    )
                    .await
                }
            }
        });
    }
    let bombs = async {
        let code = bomb(port, 1 << 30).await;
        assert_eq!(code, Some(tonic::Code::ResourceExhausted));
    };
    let large = async {
        // 64 MiB in one field: within the limit, and no event of a user.
        let mut client = connect(port).await;
        let event = log(&json!({ "blob": "x".repeat(64 << 20) }), 1);
        client.push_events(request(vec![event])).await.unwrap();
    };
    let good = async {
        let mut client = connect(port).await;
        for n in 0..20_u32 {
            let record = json!({ "type": "track", "userId": "u1", "event": "Good", "messageId": n.to_string() });
            client.push_events(request(vec![log(&record, u128::from(n) + 10)])).await.unwrap();
        }
    };
    let all = async { tokio::join!(bombs, large, good) };
    tokio::time::timeout(Duration::from_secs(180), all).await.expect("good clients are served");
    while let Some(end) = bad.join_next().await {
        end.unwrap();
    }
    assert!(program.try_wait().unwrap().is_none(), "it still runs");
    let peak = peak_kib(program.id());
    println!("at most {} MiB resident", peak >> 10);
    assert!(peak < 1 << 20, "{peak} KiB");
    assert_eq!(account.admin("stats").await["events"], 20);
    program.kill().unwrap();
    program.wait().unwrap();
    account.close().await;
}

/// A field of bytes on the wire.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend(bytes);
    out
}

/// A push with a message of one's own, packed with gzip.
async fn packed(port: u16, message: &[u8]) -> (usize, tonic::Code) {
    let mut packed = Vec::new();
    let mut gzip = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
    gzip.write_all(message).unwrap();
    gzip.finish().unwrap();
    let mut frame = vec![1];
    frame.extend(u32::try_from(packed.len()).unwrap().to_be_bytes());
    frame.extend(packed);
    let size = frame.len();
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let answer = client
        .post(format!("http://127.0.0.1:{port}/vector.Vector/PushEvents"))
        .header("content-type", "application/grpc")
        .header("grpc-encoding", "gzip")
        .header("te", "trailers")
        .body(frame)
        .send()
        .await
        .unwrap();
    let code = answer.headers().get("grpc-status").and_then(|code| code.to_str().ok());
    let code = code.and_then(|code| code.parse::<i32>().ok()).unwrap_or(0);
    (size, tonic::Code::from(code))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_messages_with_many_values_use_bounded_memory() {
    // Guarantees that the memory of decoding is bounded by the budget, not by what a message
    // unpacks to: events, entries and list items of two to six bytes, tens of millions of them, in
    // messages of some ten KB, several at once; and that a good client is served meanwhile.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let port = free_port().await;
    let dir = place.path().display();
    let text = format!(
        r#"
data_dir = "{dir}/data"
[sources.vector]
type = "vector"
address = "127.0.0.1:{port}"
[sinks.crm]
type = "usercom"
inputs = ["vector"]
endpoint = "{}"
api_key = "{KEY}"
preset = "segment"
"#,
        account.endpoint()
    );
    let config = place.write("pipeline.toml", &text);
    let log_file = std::fs::File::create(place.path().join("log")).unwrap();
    let mut program = binary()
        .args(["run", "-c", config.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(log_file)
        .spawn()
        .unwrap();
    drop(connect(port).await);
    let many = 10 << 20;
    // An event without anything, a log without fields, a list of empty values, an object of empty
    // entries, and one of entries with keys of their own.
    let empty_events = b"\x0a\x00".repeat(many);
    let empty_logs = b"\x0a\x02\x0a\x00".repeat(many / 2);
    let list = field(
        1,
        &field(
            1,
            &field(1, &[field(1, b"a"), field(2, &field(8, &b"\x0a\x00".repeat(many)))].concat()),
        ),
    );
    let entries = field(1, &field(1, &b"\x0a\x00".repeat(many)));
    let mut keyed = Vec::new();
    for n in 0..1_500_000_u32 {
        keyed.extend(field(1, &[field(1, &n.to_be_bytes()), field(2, b"\x48\x00")].concat()));
    }
    let keyed = field(1, &field(1, &keyed));
    let mut bad = JoinSet::new();
    for message in [empty_events, empty_logs, list, entries, keyed] {
        let message = std::sync::Arc::new(message);
        for _ in 0..2 {
            let message = std::sync::Arc::clone(&message);
            bad.spawn(async move { packed(port, &message).await });
        }
    }
    let mut client = connect(port).await;
    let record = json!({ "type": "track", "userId": "u1", "event": "Good", "messageId": "1" });
    let good = async {
        // Refused for want of memory, it is sent again, as Vector does.
        while client.push_events(request(vec![log(&record, 10)])).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(180), good).await.expect("it is served");
    while let Some(answered) = bad.join_next().await {
        let (size, code) = answered.unwrap();
        println!("{size} bytes: {code:?}");
        assert!(matches!(code, tonic::Code::Ok | tonic::Code::ResourceExhausted), "{code:?}");
    }
    let peak = peak_kib(program.id());
    println!("at most {} MiB resident", peak >> 10);
    assert!(peak < 640 << 10, "{peak} KiB");
    assert!(program.try_wait().unwrap().is_none(), "it still runs");
    program.kill().unwrap();
    program.wait().unwrap();
    let log = std::fs::read_to_string(place.path().join("log")).unwrap();
    assert!(log.contains("too many events") && log.contains("max_events"), "{log}");
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_large_batch_is_rejected_with_a_message() {
    // Guarantees a log line with the size, the limit, the client and the remedy, whether the batch
    // is too large as it comes or once inflated, and a count of such requests.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let (port, api) = (free_port().await, free_port().await);
    let dir = place.path().display();
    let text = format!(
        r#"
data_dir = "{dir}/data"
[api]
listen = "127.0.0.1:{api}"
[sources.vector]
type = "vector"
address = "127.0.0.1:{port}"
max_message_bytes = 10000
[sinks.crm]
type = "usercom"
inputs = ["vector"]
endpoint = "{}"
api_key = "{KEY}"
preset = "segment"
"#,
        account.endpoint()
    );
    let config = place.write("pipeline.toml", &text);
    let log_file = std::fs::File::create(place.path().join("log")).unwrap();
    let mut program = binary()
        .args(["run", "-c", config.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(log_file)
        .spawn()
        .unwrap();
    let mut client = connect(port).await;
    let event = log(&json!({ "text": "x".repeat(20_000) }), 1);
    let size = prost::Message::encoded_len(&request(vec![event.clone()]));
    let plain = client.push_events(request(vec![event.clone()])).await.unwrap_err();
    assert_eq!(plain.code(), tonic::Code::ResourceExhausted);
    let mut zstd = client.send_compressed(tonic::codec::CompressionEncoding::Zstd);
    let inflated = zstd.push_events(request(vec![event])).await.unwrap_err();
    assert_eq!(inflated.code(), tonic::Code::ResourceExhausted);
    let metrics = reqwest::get(format!("http://127.0.0.1:{api}/metrics")).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    program.kill().unwrap();
    program.wait().unwrap();
    let log = std::fs::read_to_string(place.path().join("log")).unwrap();
    let line = log.lines().find(|line| line.contains("max_message_bytes")).unwrap();
    for word in [&size.to_string(), "10000", "127.0.0.1", "batch.max_events", "vector"] {
        assert!(line.contains(word), "{word} is not in {line}");
    }
    let counted = metrics.lines().find(|line| line.contains("request_too_large")).unwrap();
    assert!(counted.ends_with(" 2"), "{counted}");
    account.close().await;
}
