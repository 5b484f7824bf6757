//! Whatever connects: memory stays bounded, nothing panics, and good clients are served meanwhile.

use std::io::Write;
use std::process::Stdio;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use usercom_sink::emulator::Faults;

use super::*;
use crate::support::{Account, KEY, Place, binary};

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
async fn two_hundred_bad_clients_and_a_good_one() {
    // Malformed frames, half bodies, large bodies and a bomb of 1 GiB cost bounded memory, leave
    // with no code on which Vector would drop events, and do not keep a good client waiting for
    // long.
    let account = Account::open(Faults::default()).await;
    let place = Place::new();
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
