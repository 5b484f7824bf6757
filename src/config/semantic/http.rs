//! Checks the `http` source: its address, paths, credentials and certificates.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use secrecy::{ExposeSecret, SecretString};

use super::FaultCollector;
use crate::config::fault::{ConfigPath, Target};
use crate::config::pipeline::SinkConfig;
use crate::config::recover::RecoveredParts;
use crate::config::sink::BufferKind;
use crate::config::source::{
    HttpAuth, HttpAuthStrategy, HttpSourceConfig, SourceConfig, TlsServer, segment_call,
};

/// Faults of one source, except its decoding.
pub(super) fn check(faults: &mut FaultCollector<'_>, at: &ConfigPath, http: &HttpSourceConfig) {
    if http.address.parse::<SocketAddr>().is_err() {
        let message = format!("`{}` is not an IP address and port", http.address);
        let help = "write both: `127.0.0.1:8080`, or `0.0.0.0:8080` for every interface";
        faults.at("E0330", at.key("address"), Target::Value, message, help);
    }
    path(faults, at.key("path"), &http.path);
    tls(faults, &at.key("tls"), &http.tls);
    if let Some(auth) = &http.auth {
        self::auth(faults, &at.key("auth"), auth);
    }
    headers(faults, &at.key("headers"), &http.headers);
    if http.write_key.is_some() && http.auth.is_none() {
        let message = format!(
            "`{}` accepts records from any client: the write key protects only the paths of \
             Segment's API",
            http.path
        );
        let help = "set `auth` too: requests to these paths then need a password or a token";
        faults.at("W0331", at.key("write_key"), Target::Key, message, help);
    }
    if http.write_key.as_ref().is_some_and(is_empty) {
        let help = "write the key the SDKs are given, or leave it out: then any key is accepted";
        faults.at("E0335", at.key("write_key"), Target::Value, "the write key is empty", help);
    }
}

/// Two sources cannot listen on one address.
pub(super) fn one_address_each<'a>(
    faults: &mut FaultCollector<'_>,
    sources: impl Iterator<Item = (&'a String, &'a SourceConfig)>,
) {
    let mut seen: HashMap<SocketAddr, &str> = HashMap::new();
    for (name, source) in sources {
        let address = match source {
            SourceConfig::Http(http) => &http.address,
            SourceConfig::Vector(vector) => &vector.address,
            SourceConfig::File(_)
            | SourceConfig::Fluvio(_)
            | SourceConfig::Stdin(_)
            | SourceConfig::Kafka(_) => continue,
        };
        let Ok(address) = address.parse::<SocketAddr>() else { continue };
        if let Some(first) = seen.get(&address).filter(|_| address.port() != 0) {
            let path = ConfigPath::default().key("sources").key(name);
            let message = format!("`{name}` and `{first}` both listen on {address}");
            let help = "give each source an `address` of its own";
            faults.at("E0336", path, Target::Key, message, help);
        }
        seen.entry(address).or_insert(name);
    }
}

/// Headers that become metadata: none that carry credentials.
fn headers(faults: &mut FaultCollector<'_>, at: &ConfigPath, headers: &[String]) {
    const CREDENTIALS: [&str; 5] =
        ["authorization", "cookie", "proxy-authorization", "set-cookie", "www-authenticate"];
    for (index, name) in headers.iter().enumerate() {
        let lower = name.to_ascii_lowercase();
        let (message, help) = if CREDENTIALS.contains(&lower.as_str()) {
            let help = "leave it out: what is in a record's metadata is stored and shown";
            (format!("header `{lower}` carries credentials"), help)
        } else if name.parse::<axum::http::HeaderName>().is_err() {
            let help = "write the name alone: `x-shopify-topic`";
            (format!("`{}` cannot be the name of a header", name.escape_debug()), help)
        } else {
            continue;
        };
        faults.at("E0337", at.index(index), Target::Value, message, help);
    }
}

/// Sinks with a memory buffer after a source whose clients repeat unanswered requests: records in
/// flight during a crash are received again.
pub(super) fn buffered_in_memory(faults: &mut FaultCollector<'_>, parts: &RecoveredParts) {
    let is_pushed = |(_, source): &&(String, SourceConfig)| {
        matches!(source, SourceConfig::Http(_) | SourceConfig::Vector(_))
    };
    let pushed: HashSet<&str> =
        parts.sources.iter().filter(is_pushed).map(|(name, _)| name.as_str()).collect();
    for recovered in &parts.sinks {
        let SinkConfig::Usercom(sink) = &recovered.config;
        if sink.buffer.kind != BufferKind::Memory {
            continue;
        }
        if let Some(index) = sink.inputs.iter().position(|input| pushed.contains(input.as_str())) {
            let path = recovered.path().key("inputs").index(index);
            let message = format!(
                "with a memory buffer, records that `{}` received shortly before a crash may be \
                 delivered twice",
                sink.inputs[index]
            );
            let help = "write `buffer.type = \"disk\"`: then requests are answered once their \
                        records are on this machine's disk, and what was sent is known after a crash";
            faults.at("W0341", path, Target::Value, message, help);
        }
    }
}

fn path(faults: &mut FaultCollector<'_>, at: ConfigPath, path: &str) {
    let plain = |c: char| c.is_ascii_graphic() && !"?#%\\\"<>^`{|}".contains(c);
    if !path.starts_with('/') || !path.chars().all(plain) {
        let message = format!("`{}` cannot be the path of a URL", path.escape_debug());
        let help = "begin with `/` and use plain characters: `/v1/records`";
        faults.at("E0331", at, Target::Value, message, help);
    } else if segment_call(path).is_some() {
        let message = format!("`{path}` is a path of Segment's API, which is served too");
        let help = "choose another one, such as `/v1/records`";
        faults.at("E0333", at, Target::Value, message, help);
    } else if matches!(path, "/" | "/health") {
        let message =
            format!("`{path}` is the source's health check, so it cannot receive records");
        let help = "choose another one, such as `/v1/records`";
        faults.at("E0333", at, Target::Value, message, help);
    }
}

pub(super) fn tls(faults: &mut FaultCollector<'_>, at: &ConfigPath, tls: &TlsServer) {
    if !tls.enabled {
        return;
    }
    let wanted = [
        ("crt_file", tls.crt_file.is_some(), true, "the certificate chain, a PEM file"),
        ("key_file", tls.key_file.is_some(), true, "the certificate's private key, a PEM file"),
        (
            "ca_file",
            tls.ca_file.is_some(),
            tls.verify_certificate,
            "the authorities whose clients are trusted, a PEM file",
        ),
    ];
    for (key, given, needed, what) in wanted {
        if needed && !given && !faults.has(&at.key(key)) {
            let message = format!("TLS needs `{key}`");
            let help = format!("write `tls.{key} = \"…\"`: {what}");
            faults.at("E0332", at.clone(), Target::Value, message, help);
        }
    }
}

fn auth(faults: &mut FaultCollector<'_>, at: &ConfigPath, auth: &HttpAuth) {
    let basic = auth.strategy == HttpAuthStrategy::Basic;
    let word = if basic { "basic" } else { "bearer" };
    let user = auth.user.as_ref().map(|user| user.is_empty() || user.contains(':'));
    let secret = |secret: &Option<SecretString>| secret.as_ref().map(is_empty);
    for (key, bad, needed) in [
        ("user", user, basic),
        ("password", secret(&auth.password), basic),
        ("token", secret(&auth.token), !basic),
    ] {
        match bad {
            None if needed && !faults.has(&at.key(key)) => {
                let message = format!("strategy `{word}` needs `{key}`");
                let help = format!("write `auth.{key} = \"…\"`");
                faults.at("E0334", at.key("strategy"), Target::Value, message, help);
            }
            Some(true) if needed => {
                let message = format!("this cannot be the `{key}`");
                let help = "it must not be empty, and a user name has no `:`";
                faults.at("E0334", at.key(key), Target::Value, message, help);
            }
            Some(_) if !needed => {
                let message = format!("strategy `{word}` has no `{key}`");
                let help = format!("leave `{key}` out, or choose the other strategy");
                faults.at("E0334", at.key(key), Target::Key, message, help);
            }
            _ => {}
        }
    }
}

fn is_empty(secret: &SecretString) -> bool {
    secret.expose_secret().trim().is_empty()
}
