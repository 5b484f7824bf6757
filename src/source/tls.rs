//! Builds the TLS acceptor of a listening source from PEM files. The config check has already
//! verified which files must be given.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::config::source::TlsServer;

/// The acceptor for connections that speak `protocol`, or `None` where connections are not
/// encrypted.
///
/// # Errors
///
/// Files that cannot be read, hold nothing, or do not belong together.
pub(super) fn acceptor(tls: &TlsServer, protocol: &[u8]) -> io::Result<Option<TlsAcceptor>> {
    if !tls.enabled {
        return Ok(None);
    }
    // The same provider as on the client side.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let config = match &tls.ca_file {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| bad(file, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match tls.verify_certificate {
                true => verifier,
                // A client may connect without a certificate; one that it sends is verified.
                false => verifier.allow_unauthenticated(),
            };
            config.with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
        }
        None => config.with_no_client_auth(),
    };
    let (chain, key) = (given(&tls.crt_file, "crt_file")?, given(&tls.key_file, "key_file")?);
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, &error))?;
    let mut config = config
        .with_single_cert(certificates(chain)?, private)
        .map_err(|error| bad(chain, &error))?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn given<'a>(file: &'a Option<PathBuf>, key: &str) -> io::Result<&'a Path> {
    file.as_deref().ok_or_else(|| io::Error::other(format!("`tls.{key}` is missing")))
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let found =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| bad(file, &error))?;
    match found.is_empty() {
        true => Err(bad(file, &"it holds no certificate")),
        false => Ok(found),
    }
}

fn bad(file: &Path, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {why}", file.display()))
}
