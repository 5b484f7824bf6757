//! Who guesses credentials, or never reads an answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use tokio::time::Instant;

use usercom_sink::emulator::Faults;

use super::{Served, answer, await_port, free_port, settling};
use crate::support::{EmulatorAccount, KEY, TestDir, binary};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_guesses_are_rate_limited() {
    // Guarantees that after some wrong passwords an address is answered with 429 without a look at
    // what it shows, and that it may try again a little later.
    let (out, _) = settling();
    let more = "auth = { strategy = 'bearer', token = 'right' }";
    let served = Served::start(more, out).await;
    let post = async |token: &str| {
        let request = served.client.post(served.url("/v1/records")).body("{}");
        answer(request.bearer_auth(token)).await.0
    };
    assert_eq!(post("right").await, 200);
    let mut counts = std::collections::BTreeMap::new();
    for n in 0..200 {
        *counts.entry(post(&format!("guess-{n}")).await).or_insert(0) += 1;
    }
    assert!(counts[&401] >= 20 && counts[&401] < 100, "{counts:?}");
    assert_eq!(counts[&401] + counts[&429], 200);
    let mut status = 429;
    for _ in 0..100 {
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        status = post("right").await;
    }
    assert_eq!(status, 200);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_never_reads_responses_is_disconnected() {
    // Guarantees that a connection is ended whose sender continues asking and reads nothing.
    let (out, _) = settling();
    let served = Served::start("read_timeout_secs = 1\nmax_connections = 2", out).await;
    let address = served.address;
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let begin = Instant::now();
        let many = "GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
        while begin.elapsed() < Duration::from_secs(30) {
            match stream.write(many.as_bytes()) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return true,
            }
        }
        false
    });
    assert!(asked.await.unwrap(), "the connection still stands");
    assert_eq!(served.post("/v1/records", "{}").await.0, 200);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_requests_are_logged_and_counted_and_silent_status_connections_are_closed() {
    // Guarantees a log line and a metric for requests that are refused, and that unfinished heads
    // on the status page end within some seconds.
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let (port, api) = (free_port(), free_port());
    let dir = place.path().display();
    let text = format!(
        r#"
data_dir = "{dir}/data"
[api]
listen = "127.0.0.1:{api}"
[sources.web]
type = "http"
address = "127.0.0.1:{port}"
auth = {{ strategy = "basic", user = "u", password = "p" }}
[sinks.crm]
type = "usercom"
inputs = ["web"]
endpoint = "{}"
api_key = "{KEY}"
preset = "segment"
"#,
        account.endpoint()
    );
    let config = place.write("pipeline.toml", &text);
    let log = std::fs::File::create(place.path().join("log")).unwrap();
    let mut program = binary()
        .args(["run", "-c", config.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    await_port(port);
    let client = reqwest::Client::new();
    for path in ["/v1/records", "/v1/track", "/elsewhere"] {
        let url = format!("http://127.0.0.1:{port}{path}");
        let answer = client.post(url).basic_auth("u", Some("guess")).body("{}").send().await;
        assert!(answer.unwrap().status().is_client_error());
    }
    let silent: Vec<TcpStream> = (0..80)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", api)).ok()?;
            stream.write_all(b"GET /metrics HTT").ok()?;
            Some(stream)
        })
        .collect();
    let metrics =
        client.get(format!("http://127.0.0.1:{api}/metrics")).timeout(Duration::from_secs(25));
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    for kind in ["unauthorized", "unknown_path"] {
        let line = metrics.lines().find(|line| line.contains(&format!("error_type=\"{kind}\"")));
        assert!(line.is_some_and(|line| line.contains("component_errors_total")), "{metrics}");
    }
    for mut stream in silent.into_iter().take(60) {
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    program.kill().unwrap();
    program.wait().unwrap();
    let log = std::fs::read_to_string(place.path().join("log")).unwrap();
    for words in ["refused because of its credentials", "refused because of its path"] {
        let line = log.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("web") && line.contains("127.0.0.1"), "{line}");
    }
    assert!(!log.contains("guess"), "{log}");
    account.close().await;
}

#[test]
fn validate_reports_open_paths_and_memory_buffers() {
    // Guarantees a warning where a write key leaves `/v1/records` open, and where what was under
    // way in a crash may be delivered twice; and none where both are put right.
    let place = TestDir::new();
    let validate = |auth: &str, buffer: &str| {
        let dir = place.path().display();
        let text = format!(
            r#"
data_dir = "{dir}/data"
[sources.web]
type = "http"
write_key = "wk"
{auth}
[sinks.crm]
type = "usercom"
inputs = ["web"]
endpoint = "http://127.0.0.1:1/api/public/"
api_key = "{KEY}"
preset = "segment"
buffer.type = "{buffer}"
"#
        );
        let config = place.write("pipeline.toml", &text);
        let mut program = binary();
        program.args(["validate", "--no-environment", "-c", config.to_str().unwrap()]);
        let output = program.output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = validate("", "memory");
    assert!(said.contains("W0331") && said.contains("W0341"), "{said}");
    let quiet = validate("auth = { strategy = 'bearer', token = 't' }", "disk");
    assert!(!quiet.contains("W0331") && !quiet.contains("W0341"), "{quiet}");
}
