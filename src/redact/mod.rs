//! Removes secrets from text that is shown or stored: messages, the log, and the responses of a
//! server.

mod response;

use std::collections::HashSet;
use std::fmt;

pub(crate) use response::ResponseRedactor;

/// What stands in place of a secret.
pub(crate) const REDACTED: &str = "***";

/// The shortest secret that is removed from messages, in bytes: shorter ones would match other text
/// by chance.
const MIN_REDACTED: usize = 4;

/// Strings that must not appear in a message, and their replacements.
#[derive(Default, PartialEq)]
pub(crate) struct Redactions(Vec<(String, String)>);

/// Shows how many there are.
impl fmt::Debug for Redactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redactions").field(&self.0.len()).finish()
    }
}

impl Redactions {
    /// Adds a secret, unless it is too short.
    pub(crate) fn add(&mut self, secret: &str, instead: &str) {
        if secret.len() >= MIN_REDACTED {
            self.0.push((secret.to_owned(), instead.to_owned()));
        }
    }

    /// Longer secrets first, so that no part of a secret remains next to a redacted shorter one.
    pub(crate) fn longest_first(mut self) -> Self {
        self.0.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        self
    }

    /// A message without secrets.
    pub(crate) fn apply(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for (secret, instead) in &self.0 {
            if message.contains(secret.as_str()) {
                message = message.replace(secret.as_str(), instead);
            }
        }
        message
    }

    /// Those that can occur in one of these messages: a file may have any number of secrets, and
    /// searching each message for each takes long.
    pub(crate) fn within<'m>(mut self, messages: impl Iterator<Item = &'m str>) -> Self {
        let fours = |text: &str| -> Vec<[u8; MIN_REDACTED]> {
            let windows = text.as_bytes().windows(MIN_REDACTED);
            windows.map(|four| four.try_into().expect("a window of that length")).collect()
        };
        let known: HashSet<_> = messages.flat_map(fours).collect();
        self.0.retain(|(secret, _)| {
            let mut windows = secret.as_bytes().windows(MIN_REDACTED);
            windows.all(|four| known.contains(four))
        });
        self.0.dedup();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_secrets_are_replaced_before_their_parts() {
        // No part of a secret remains; short secrets are not searched for; no secret is in the
        // `Debug` output.
        let mut redactions = Redactions::default();
        redactions.add("hunter", REDACTED);
        redactions.add("hunter22", "${PASSWORD}");
        redactions.add("abc", REDACTED);
        let redactions = redactions.longest_first();
        assert_eq!(redactions.apply("hunter22 hunter abc"), "${PASSWORD} *** abc");
        assert!(!format!("{redactions:?}").contains("hunter"));
        let within = redactions.within(["a hunter?"].into_iter());
        assert_eq!(within.0.len(), 1, "the longer secret cannot occur");
    }
}
