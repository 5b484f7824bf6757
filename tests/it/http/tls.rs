//! TLS of the `http` source, with and without certificates of clients.

use std::path::Path;

use super::{Served, bodies, settling};
use crate::support::certificates::certificates;

fn settings(dir: &Path, more: &str) -> String {
    let dir = dir.display();
    format!(
        "[tls]\nenabled = true\ncrt_file = '{dir}/server.pem'\nkey_file = '{dir}/server.key'\n{more}"
    )
}

fn client(dir: &Path, identity: bool) -> reqwest::Client {
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let authority = reqwest::Certificate::from_pem(&read("ca.pem")).unwrap();
    let mut builder = reqwest::Client::builder().tls_certs_only([authority]);
    if identity {
        let pem = [read("client.key"), read("client.pem")].concat();
        builder = builder.identity(reqwest::Identity::from_pem(&pem).unwrap());
    }
    builder.build().unwrap()
}

async fn post(served: &Served, client: &reqwest::Client) -> Result<u16, reqwest::Error> {
    let url = format!("https://localhost:{}/v1/records", served.address.port());
    client.post(url).body("{}").send().await.map(|reply| reply.status().as_u16())
}

#[tokio::test]
async fn tls_connection_is_accepted() {
    // Who trusts the authority gets through; who speaks plainly does not.
    let dir = certificates();
    let (out, seen) = settling();
    let served = Served::start(&settings(dir.path(), ""), out).await;
    assert_eq!(post(&served, &client(dir.path(), false)).await.unwrap(), 200);
    let plain = served.client.post(served.url("/v1/records")).body("{}").send().await;
    assert!(plain.is_err(), "{plain:?}");
    assert_eq!(bodies(&seen).len(), 1);
    served.end().await;
}

#[tokio::test]
async fn certificates_of_clients() {
    // Where they are asked for, only who shows one of the authority's gets through.
    let dir = certificates();
    let (out, seen) = settling();
    let more = format!("ca_file = '{}/ca.pem'\nverify_certificate = true", dir.path().display());
    let served = Served::start(&settings(dir.path(), &more), out).await;
    assert!(post(&served, &client(dir.path(), false)).await.is_err());
    assert_eq!(post(&served, &client(dir.path(), true)).await.unwrap(), 200);
    assert_eq!(bodies(&seen).len(), 1);
    served.end().await;
}
