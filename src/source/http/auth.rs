//! Checks the credentials of a request against those in the settings.
//!
//! # Invariants
//!
//! Comparing takes the same time whatever the request contains, and no type here prints its secret.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::source::{HttpAuth, HttpAuthStrategy};

/// A secret to compare with, as its digest, so that not even its length can be measured.
#[derive(Clone)]
pub(super) struct SecretDigest([u8; 32]);

impl SecretDigest {
    pub(super) fn of(text: &SecretString) -> Self {
        Self::digest(text.expose_secret().as_bytes())
    }

    fn digest(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Whether `shown` equals the secret.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(&Self::digest(shown).0).into()
    }
}

/// What the `Authorization` header of a request must contain.
pub(super) enum Credentials {
    /// `user:password`.
    Basic(SecretDigest),
    /// The token.
    Bearer(SecretDigest),
}

impl Credentials {
    /// From the settings. A credential that they do not set is never accepted.
    pub(super) fn of(auth: &HttpAuth) -> Self {
        let text = |secret: &Option<SecretString>| {
            secret.as_ref().map(|s| s.expose_secret().to_owned()).unwrap_or_default()
        };
        match auth.strategy {
            HttpAuthStrategy::Basic => {
                let user = auth.user.as_deref().unwrap_or_default();
                let pair = format!("{user}:{}", text(&auth.password));
                Self::Basic(SecretDigest::digest(pair.as_bytes()))
            }
            HttpAuthStrategy::Bearer => {
                Self::Bearer(SecretDigest::digest(text(&auth.token).as_bytes()))
            }
        }
    }

    /// Whether a request contains them.
    pub(super) fn shown_in(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Basic(pair) => basic(headers).is_some_and(|shown| pair.is(&shown)),
            Self::Bearer(token) => {
                of_scheme(headers, "bearer").is_some_and(|shown| token.is(shown.as_bytes()))
            }
        }
    }

    /// The challenge for a request that does not contain them.
    pub(super) fn challenge(&self) -> &'static str {
        match self {
            Self::Basic(_) => "Basic realm=\"records\", charset=\"UTF-8\"",
            Self::Bearer(_) => "Bearer realm=\"records\"",
        }
    }
}

/// The user name of basic authentication, where Segment's SDKs send their write key.
pub(super) fn basic_user(headers: &HeaderMap) -> Option<Vec<u8>> {
    let pair = basic(headers)?;
    let end = pair.iter().position(|byte| *byte == b':').unwrap_or(pair.len());
    Some(pair[..end].to_vec())
}

fn basic(headers: &HeaderMap) -> Option<Vec<u8>> {
    STANDARD.decode(of_scheme(headers, "basic")?).ok()
}

fn of_scheme<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (shown, rest) = text.trim().split_once(' ')?;
    shown.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}
