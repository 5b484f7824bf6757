//! TLS of the `vector` source: certificates are the only proof of identity Vector's sink can give.

use std::path::Path;

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::*;
use crate::support::certificates::certificates;

/// Pushes one event over TLS, with or without a certificate of one's own.
async fn push(port: u16, dir: &Path, identity: Option<&str>) -> Result<(), String> {
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.pem")))
        .domain_name("localhost");
    if let Some(name) = identity {
        let (chain, key) = (read(&format!("{name}.pem")), read(&format!("{name}.key")));
        tls = tls.identity(Identity::from_pem(chain, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.map_err(|e| e.to_string())?;
    let event = log(&json!({ "n": 1 }), 1);
    let pushed = VectorClient::new(channel).push_events(request(vec![event])).await;
    pushed.map(drop).map_err(|status| status.to_string())
}

/// Waits until the port is open.
async fn listening(port: u16) {
    for _ in 0..500 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing listens on {port}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_clients() {
    // Only who shows a certificate of the authority gets through; who shows none, or speaks
    // plainly, does not.
    let dir = certificates();
    let at = |name: &str| dir.path().join(name);
    let mut bench = Bench::start(json!({ "tls": {
        "enabled": true, "crt_file": at("server.pem"), "key_file": at("server.key"),
        "ca_file": at("ca.pem"), "verify_certificate": true,
    }}))
    .await;
    let port = bench.port;
    listening(port).await;
    assert!(push(port, dir.path(), None).await.is_err());
    let plain = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    if let Ok(channel) = plain.connect().await {
        let event = log(&json!({ "n": 1 }), 1);
        assert!(VectorClient::new(channel).push_events(request(vec![event])).await.is_err());
    }
    let (pushed, _) =
        tokio::join!(push(port, dir.path(), Some("client")), bench.settle(1, Verdict::Delivered));
    pushed.unwrap();
    bench.end().await;
}
