//! The base URL of the API, as a type that only a valid URL can have.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

/// A base URL to which paths are appended: `http` or `https`, a host, no credentials, no `?` or `#`;
/// normalized, and ending in a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(Url);

/// Why a text is not a base URL. It does not repeat the text, which may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// It is not a URL.
    #[error("bad endpoint URL: {0}")]
    Syntax(#[from] url::ParseError),
    /// Another scheme, where it is short enough to be one. A long one may be a damaged user name.
    #[error("the endpoint's scheme is {}", match .0 {
        Some(scheme) => format!("`{scheme}`, not http or https"),
        None => "neither http nor https".to_owned(),
    })]
    Scheme(Option<String>),
    /// It has a user name or a password.
    #[error("the endpoint has a user name or password in it")]
    Credentials,
    /// It has a query or a fragment.
    #[error("the endpoint has a `?` or `#` in it")]
    QueryOrFragment,
}

/// Longer schemes are not shown, in bytes.
const MAX_SHOWN_SCHEME: usize = 6;

impl BaseUrl {
    /// Parses a base URL.
    ///
    /// # Errors
    ///
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, BaseUrlError> {
        let mut url = Url::parse(text.trim())?;
        if !matches!(url.scheme(), "http" | "https") {
            let short = Some(url.scheme()).filter(|scheme| scheme.len() <= MAX_SHOWN_SCHEME);
            return Err(BaseUrlError::Scheme(short.map(str::to_owned)));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BaseUrlError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BaseUrlError::QueryOrFragment);
        }
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Ok(Self(url))
    }

    /// The URL as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether the API key would be sent unencrypted to another machine.
    pub(super) fn is_unencrypted(&self) -> bool {
        let is_loopback = match self.0.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
            None => false,
        };
        self.0.scheme() == "http" && !is_loopback
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_base_url_is_rejected() {
        // Guarantees which endpoints are refused, that the message does not repeat them, and that
        // a valid one ends in a slash.
        for (good, parsed) in [
            ("http://127.0.0.1:1/api/public/", "http://127.0.0.1:1/api/public/"),
            ("https://h", "https://h/"),
            (" https://H/x ", "https://h/x/"),
        ] {
            assert_eq!(BaseUrl::parse(good).unwrap().as_str(), parsed);
        }
        for bad in [
            "",
            "acme",
            "http://",
            "ftp://h/",
            "s3cret-user:pass@h/",
            "https://u:s3cret@h/",
            "https://h/?a=s3cret",
            "http://h/#s3cret",
        ] {
            let error = BaseUrl::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn unencrypted_url_of_another_machine_is_recognised() {
        // Loopback addresses and https are safe for the API key.
        for (url, unencrypted) in [
            ("http://acme.example", true),
            ("https://acme.example", false),
            ("http://localhost:1", false),
            ("http://127.0.0.1", false),
            ("http://[::1]:9/", false),
            ("http://192.0.2.1", true),
        ] {
            assert_eq!(BaseUrl::parse(url).unwrap().is_unencrypted(), unencrypted, "{url}");
        }
    }
}
