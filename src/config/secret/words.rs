//! Decides which words of a text look like credentials, and which parts of a URL may be a user name
//! and password.
//!
//! # Invariants
//!
//! In doubt, a word counts as a secret.

use std::borrow::Cow;
use std::ops::Range;

use super::{is_known, is_reference};

/// Whether a word looks like a credential: long, and not like a name, a path or a number.
pub(super) fn looks_secret(word: &str) -> bool {
    let count = |is: fn(&char) -> bool| word.chars().filter(is).count();
    let digits = count(char::is_ascii_digit);
    let number = word.chars().all(|c| c.is_ascii_digit() || ".-+_:TZ".contains(c));
    word.len() >= 8
        && !number
        && !word.starts_with(['.', '%', '^', '$'])
        && !word.contains("${")
        && (digits > 0 || count(char::is_ascii_uppercase) > 1 || word.len() >= 16)
}

/// Whether a word is the target of a field, `traits.company_name` or `properties.orderTotal`, with
/// steps that are names: words of letters, with at most two digits at the end.
fn is_target(word: &str) -> bool {
    let mut steps = word.split('.');
    let starts = steps.next().is_some_and(|step| matches!(step, "traits" | "properties"));
    starts && steps.clone().next().is_some() && steps.all(is_name)
}

/// Whether a text is a name in `snake_case` or `camelCase`. Letters that were drawn by chance are
/// not: a capital begins a part of at least three letters.
fn is_name(text: &str) -> bool {
    let letters = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let begins_part = |(at, c): (usize, char)| (at == 0 || c.is_ascii_uppercase()).then_some(at);
    letters.len() + 2 >= text.len()
        && letters.trim_end_matches('_').split('_').all(|part| {
            let starts: Vec<_> = part.char_indices().filter_map(begins_part).collect();
            let ends = starts.iter().skip(1).copied().chain([part.len()]);
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_alphabetic())
                && (starts.len() == 1 || starts.iter().zip(ends).all(|(from, to)| to - from >= 3))
        })
}

/// The words of a text that look like credentials, by place.
pub(super) fn secret_words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_border = |c: char| c.is_whitespace() || "\"'`=,:;[]{}()<>/@#&*|\0".contains(c);
    text.split_inclusive(is_border)
        .scan(0, |at, piece| {
            let start = *at;
            *at += piece.len();
            Some((start, piece))
        })
        .filter_map(move |(start, piece)| {
            let word = piece.trim_end_matches(is_border);
            // A secret after a dot or a dollar sign counts; the steps of a path are checked one by
            // one.
            let in_path = || {
                let steps = word.trim_start_matches(['.', '%', '^', '$']).split('.');
                word.starts_with(['.', '%', '^', '$'])
                    && steps.into_iter().any(|step| looks_secret(step) && !is_known(step))
            };
            ((looks_secret(word) && !is_known(word) && !is_target(word)) || in_path())
                .then(|| start..start + word.len())
        })
}

/// What may be a user name and password in a URL, however its scheme is damaged: what is before the
/// last `@` of a word, or where a password would be if the `@` is missing.
pub(super) fn user_infos(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_border = |c: char| c.is_whitespace() || "\"'`".contains(c);
    text.split_inclusive(is_border)
        .scan(0, |at, piece| {
            let start = *at;
            *at += piece.len();
            Some((start, piece))
        })
        .flat_map(move |(start, piece)| {
            let word = without_references(piece.trim_end_matches(is_border));
            let found = user_infos_of(&word);
            found.into_iter().map(move |info| start + info.start..start + info.end)
        })
}

/// Those of one word without blanks and quotes.
fn user_infos_of(word: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    // Where a host begins, if what precedes it is a user name.
    let mut at = 0;
    if let Some(end) = word.rfind('@') {
        let start = word[..end].find("//").map_or(0, |slashes| slashes + 2);
        let info = &word[start..end];
        // A mail address has neither scheme nor password.
        let is_mail = start == 0 && !info.contains(['/', ':', '\\']) && !looks_secret(info);
        let secret = info.split_once(':').map_or(info, |(_, secret)| secret);
        if !is_mail && secret.contains(char::is_alphanumeric) {
            found.push(start..end + 1);
        }
        at = end + 1;
    }
    if !word.contains(['/', '\\']) {
        return found;
    }
    for part in word[at..].split_inclusive(['/', '\\']) {
        let pair = part.trim_end_matches(['/', '\\']);
        if is_pair(pair) {
            found.push(at..at + pair.len());
        }
        at += part.len();
    }
    found
}

/// Whether a part of a URL between slashes may be a user name and a password: `user:password`, and
/// not `host:port`, a host address, or a group of a regular expression.
fn is_pair(part: &str) -> bool {
    let Some((name, secret)) = part.split_once(':') else {
        return false;
    };
    let address = || {
        let (host, port) = part.rsplit_once(']').unwrap_or((part, ""));
        host.starts_with('[') && port.trim_start_matches(':').bytes().all(|b| b.is_ascii_digit())
    };
    let is_port = secret.bytes().all(|b| b.is_ascii_digit());
    secret.contains(char::is_alphanumeric)
        && !is_port
        && !name.ends_with(['?', '('])
        && !name.starts_with("${")
        && !address()
}

/// A word of the same length with each `${NAME}` that is not a secret itself blanked.
pub(super) fn without_references(word: &str) -> Cow<'_, str> {
    if !word.contains("${") {
        return Cow::Borrowed(word);
    }
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(open) = rest.find("${") {
        out.push_str(&rest[..open]);
        let close = if rest[open..].starts_with("${{") { "}}" } else { "}" };
        let length = rest[open..].find(close).map_or(2, |at| at + close.len());
        let reference = &rest[open..open + length];
        match is_reference(reference) {
            true => out.extend(std::iter::repeat_n('\0', length)),
            false => out.push_str(reference),
        }
        rest = &rest[open + length..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_with_names_are_no_secrets_but_targets_with_tokens_are() {
        // A mapping whose targets were redacted could not be tried in the playground; a token that
        // stands in the place of a name is redacted all the same.
        for name in [
            "properties.total",
            "properties.order_total_amount",
            "traits.subscriptionPlanName",
            "traits.address_line_2",
            "traits.billing.companyIdentifier",
        ] {
            assert_eq!(secret_words(name).count(), 0, "{name}");
        }
        for secret in [
            "traits.sk_live_51H8x",
            "properties.QmFzZTY0VG9rZW4",
            "traits.aB3dE6gH9",
            "traits.xKcdQweRtyUiopAsdf",
            "properties.deadbeef00112233",
            "other.order_total_amount",
        ] {
            assert_eq!(secret_words(secret).count(), 1, "{secret}");
        }
    }
}
