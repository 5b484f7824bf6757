//! What never answers as the API does: the words say what to do, and the key goes nowhere else.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::support::stub::{Answer, Stub, answer, json as api, page};
use crate::support::{KEY, TestDir, binary};

/// How long the words may take.
const WORDS_TIMEOUT: Duration = Duration::from_secs(60);

/// A server, what the log must say of it, and the exit code if the run ends.
struct Case {
    name: &'static str,
    endpoint: String,
    says: &'static [&'static str],
    exit_code: Option<i32>,
}

#[test]
fn server_that_is_not_the_api_is_named_with_its_remedy() {
    // From the first request on something else answers: the log says what it is and what to do, the
    // key is not in it, and a redirect is not followed.
    let tls = Runtime::new().unwrap();
    let elsewhere = Stub::start(|_| api(200, r#"{"results":[]}"#));
    let there = elsewhere.endpoint();
    let stubs = [
        Stub::start(move |_| answer(302, &[("Location", there.as_str())], "")),
        Stub::start(|_| page(401)),
        Stub::start(|_| page(403)),
        Stub::start(|_| page(404)),
        Stub::start(|_| api(401, r#"{"detail":"Invalid token."}"#)),
        Stub::start(|_| bomb()),
    ];
    let [redirect, page_401, page_403, page_404, refused, bomb] = &stubs;
    let case = |name, stub: &Stub, says, exit_code| Case {
        name,
        endpoint: stub.endpoint(),
        says,
        exit_code,
    };
    let cases = [
        case("a redirect", redirect, &["redirects", "check `app` or `endpoint`"], Some(1)),
        case("a page with 401", page_401, &["web page", "firewall"], Some(1)),
        case("a page with 403", page_403, &["web page", "firewall"], Some(1)),
        case("a page with 404", page_404, &["no User.com API at this address"], Some(1)),
        case("a refused key", refused, &["check that it is the public REST API key"], Some(77)),
        case("a gzip bomb", bomb, &["longer than the limit", "`endpoint`"], None),
        Case {
            name: "a self-signed certificate",
            endpoint: self_signed(&tls),
            says: &["certificate is not trusted here", "`endpoint`"],
            exit_code: None,
        },
        Case {
            name: "no TLS",
            endpoint: refused.endpoint().replace("http:", "https:"),
            says: &["does not speak TLS", "`endpoint`"],
            exit_code: None,
        },
    ];
    std::thread::scope(|scope| {
        for case in &cases {
            scope.spawn(|| hold(case));
        }
    });
    assert!(elsewhere.seen().is_empty(), "the redirect was followed");
}

fn hold(case: &Case) {
    let place = TestDir::new();
    place.write("records.ndjson", r#"{"type":"track","userId":"u1","event":"e"}"#);
    let sink = "preset = \"segment\"\n\
                request = { timeout_secs = 3, retry_max_duration_secs = 1 }";
    let config = place.pipeline(&case.endpoint, sink);
    let log = place.path().join("stderr");
    let mut child = binary()
        .args(["run", "-c", config.to_str().unwrap(), "--once"])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let read = || std::fs::read_to_string(&log).unwrap();
    let is_said = || case.says.iter().all(|words| read().contains(words));
    while begin.elapsed() < WORDS_TIMEOUT {
        let ended = child.try_wait().unwrap();
        if ended.is_some() || (case.exit_code.is_none() && is_said()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let status = end(&mut child);
    let (name, said) = (case.name, read());
    assert!(is_said(), "{name}: {said}");
    assert!(!said.contains(KEY), "{name}: {said}");
    if case.exit_code.is_some() {
        assert_eq!(status, case.exit_code, "{name}: {said}");
    }
}

/// Ends a run that goes on, and says how it ended by itself.
fn end(child: &mut Child) -> Option<i32> {
    let ended = child.try_wait().unwrap();
    if ended.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    ended.and_then(|status| status.code())
}

/// 8 MiB in 8 KiB.
fn bomb() -> Answer {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&vec![b' '; 8 << 20]).unwrap();
    let headers = vec![("Content-Encoding".to_owned(), "gzip".to_owned())];
    Answer::Http { status: 200, headers, body: encoder.finish().unwrap() }
}

/// The base URL of a server whose certificate is signed by no authority.
fn self_signed(runtime: &Runtime) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(async move {
        let mut handshakes = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            handshakes.spawn(acceptor.accept(stream));
        }
    });
    format!("https://localhost:{port}/api/public/")
}
