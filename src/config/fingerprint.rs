//! Detects whether two loads of a pipeline have the same settings, part by part, without storing
//! them: a digest of every source and sink after `${}` was resolved, so that a new key in
//! `${file:…}` is a change.
//!
//! # Invariants
//!
//! Equal digests mean equal settings; digests are never shown.

use std::fmt;

use indexmap::IndexMap;
use sha2::{Digest, Sha256};

use super::document::{Node, NodeKind};

/// The digest of one source's or sink's settings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl fmt::Debug for Fingerprint {
    /// Shows nothing: a short secret could be guessed from its digest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}

/// The digests of a pipeline's parts, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprints {
    sources: IndexMap<String, Fingerprint>,
    sinks: IndexMap<String, Fingerprint>,
}

impl Fingerprints {
    /// The digests of a resolved tree.
    pub(crate) fn of(root: &Node) -> Self {
        let parts = |key| {
            let table = root.get(key).and_then(Node::table);
            table
                .into_iter()
                .flatten()
                .map(|(name, entry)| (name.clone(), fingerprint(&entry.node)))
                .collect()
        };
        Self { sources: parts("sources"), sinks: parts("sinks") }
    }

    /// Whether both have a source of this name, with the same settings.
    pub fn same_source(&self, other: &Self, name: &str) -> bool {
        let digest = self.sources.get(name);
        digest.is_some() && digest == other.sources.get(name)
    }

    /// Whether both have a sink of this name, with the same settings.
    pub fn same_sink(&self, other: &Self, name: &str) -> bool {
        let digest = self.sinks.get(name);
        digest.is_some() && digest == other.sinks.get(name)
    }
}

fn fingerprint(node: &Node) -> Fingerprint {
    let mut digest = Sha256::new();
    feed(&mut digest, node);
    Fingerprint(digest.finalize().into())
}

/// Every value is prefixed with its kind, and strings and lists with their length, so that no two
/// trees give the same bytes. The order of keys counts: in a mapping it may have a meaning.
fn feed(digest: &mut Sha256, node: &Node) {
    match &node.kind {
        NodeKind::Table(entries) => {
            feed_length(digest, b't', entries.len());
            for (key, entry) in entries {
                feed_text(digest, key);
                feed(digest, &entry.node);
            }
        }
        NodeKind::Array(items) => {
            feed_length(digest, b'a', items.len());
            items.iter().for_each(|item| feed(digest, item));
        }
        NodeKind::String(text) => feed_text(digest, &text.value),
        NodeKind::Integer(number) => {
            digest.update(b"i");
            digest.update(number.to_be_bytes());
        }
        NodeKind::Float(number) => {
            digest.update(b"f");
            digest.update(number.to_bits().to_be_bytes());
        }
        NodeKind::Bool(value) => digest.update(if *value { b"y" } else { b"n" }),
        NodeKind::Null => digest.update(b"0"),
    }
}

fn feed_text(digest: &mut Sha256, text: &str) {
    feed_length(digest, b's', text.len());
    digest.update(text);
}

fn feed_length(digest: &mut Sha256, kind: u8, length: usize) {
    digest.update([kind]);
    digest.update((length as u64).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FixedEnvironment, SourceText, load};

    fn of(text: &str, secret: &str) -> Fingerprints {
        let environment = FixedEnvironment {
            files: [("/key".into(), secret.to_owned())].into(),
            ..FixedEnvironment::default()
        };
        let text = SourceText::new("p.toml", text);
        load(&[text], &environment, &|_, _| Vec::new()).unwrap().fingerprints
    }

    const PIPELINE: &str = r#"
        sources.app = { type = "file", include = ["a"] }
        sources.web = { type = "file", include = ["b"] }
        [sinks.crm]
        type = "usercom"
        inputs = ["app", "web"]
        app = "acme"
        preset = "segment"
        api_key = "${file:/key}"
    "#;

    #[test]
    fn fingerprint_changes_only_with_its_settings() {
        // Guarantees that positions and other parts do not count, and that a secret from a file
        // does.
        let old = of(PIPELINE, "one-key-0001");
        let moved = of(&format!("# a comment\n\n{PIPELINE}"), "one-key-0001");
        assert_eq!(old, moved);
        let key = of(PIPELINE, "other-key-02");
        assert!(old.same_source(&key, "app") && old.same_source(&key, "web"));
        assert!(!old.same_sink(&key, "crm"));
        let file = of(&PIPELINE.replace(r#"["b"]"#, r#"["b", "c"]"#), "one-key-0001");
        assert!(old.same_source(&file, "app") && !old.same_source(&file, "web"));
        assert!(old.same_sink(&file, "crm"));
        assert!(!old.same_source(&file, "none") && !old.same_sink(&file, "none"));
    }

    #[test]
    fn fingerprint_debug_output_shows_no_digest() {
        // Guarantees that the `Debug` output of a load contains nothing derived from a secret.
        let shown = format!("{:?}", of(PIPELINE, "one-key-0001"));
        assert!(shown.contains("Fingerprint(…)") && !shown.contains('['), "{shown}");
    }
}
