//! Removes the API key from the responses of a server: it may repeat the request, and its response
//! is stored in dead letters and shown in logs.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use regex::bytes::{NoExpand, Regex, RegexBuilder};

use super::REDACTED;

/// Shorter keys, in bytes, would match ordinary text by chance: they are removed only where they
/// are a whole word.
const MIN_PART_LEN: usize = 8;

/// The encodings in which a key may occur.
#[derive(Clone)]
pub(crate) struct ResponseRedactor(Option<Regex>);

impl ResponseRedactor {
    /// Redacts this key. An empty key redacts nothing.
    pub(crate) fn new(key: &str) -> Self {
        let key = key.trim();
        if key.is_empty() {
            return Self(None);
        }
        let mut forms = vec![key.to_owned()];
        let json = serde_json::to_string(key).unwrap_or_default();
        let json = json.trim_matches('"').to_owned();
        forms.push(json.replace('/', "\\/"));
        forms.push(json);
        forms.push(utf8_percent_encode(key, NON_ALPHANUMERIC).to_string());
        forms.push(
            key.replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;")
                .replace('\'', "&#x27;"),
        );
        if key.len() >= MIN_PART_LEN {
            forms.extend(in_base64(key));
        }
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        forms.dedup();
        let any: Vec<String> = forms.iter().map(|form| regex::escape(form)).collect();
        let any = any.join("|");
        let pattern = match key.len() < MIN_PART_LEN {
            true => format!(r"\b(?:{any})\b"),
            false => any,
        };
        Self(RegexBuilder::new(&pattern).case_insensitive(true).build().ok())
    }

    /// A body without the key.
    pub(crate) fn apply(&self, body: Bytes) -> Bytes {
        let Some(pattern) = &self.0 else {
            return body;
        };
        match pattern.replace_all(&body, NoExpand(REDACTED.as_bytes())) {
            Cow::Borrowed(_) => body,
            Cow::Owned(redacted) => Bytes::from(redacted),
        }
    }
}

/// The parts of a Base64 text that only the key determines. Base64 encodes groups of three bytes, so
/// there is one such part for each of the three positions at which the key may begin in a group.
/// The characters at both ends depend on the neighbouring bytes and are left out.
fn in_base64(key: &str) -> impl Iterator<Item = String> {
    (0..3_usize).map(move |offset| {
        let padded = [&b"\0\0\0"[..offset], key.as_bytes()].concat();
        let whole = padded.len() / 3 * 3;
        let skipped = if offset == 0 { 0 } else { 4 };
        STANDARD.encode(&padded[..whole])[skipped..].to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(key: &str, text: &str) -> String {
        let body = ResponseRedactor::new(key).apply(Bytes::from(text.to_owned()));
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn api_key_in_any_encoding_is_redacted() {
        // Guarantees that a key is found plain, in capitals, in JSON, in a URL, in HTML and in
        // Base64 wherever it begins.
        let key = "s3cr&t/key\"0123";
        let json = serde_json::to_string(key).unwrap();
        let url = utf8_percent_encode(key, NON_ALPHANUMERIC).to_string();
        for text in [
            key.to_owned(),
            key.to_uppercase(),
            json.clone(),
            json.replace('/', "\\/"),
            url,
            "s3cr&amp;t/key&quot;0123".to_owned(),
        ] {
            let body = format!("{{\"detail\":\"bad token {text}!\"}}");
            let redacted = redacted(key, &body);
            assert!(redacted.contains("***") && !redacted.contains("key"), "{redacted}");
        }
        for before in ["", "T", "To", "Token "] {
            let text = STANDARD.encode(format!("{before}{key} and more"));
            assert!(redacted(key, &text).contains("***"), "{before:?}");
        }
    }

    #[test]
    fn short_api_key_is_redacted_only_as_a_whole_word() {
        // Guarantees that a key of a few letters does not spoil the names in an answer.
        assert_eq!(redacted("k", "{\"key\":\"k\"}"), "{\"key\":\"***\"}");
        assert_eq!(redacted("", "whatever"), "whatever");
    }
}
