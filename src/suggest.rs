//! "Did you mean": the known word that is nearest to a mistyped one.
//!
//! # Invariants
//! The work per call is bounded: long words are not compared, and of many known words only the
//! first are. A configuration file may define any number of names.

/// Longer words are not compared, in bytes: they are no typing slips, and comparing takes long.
const MAX_WORD_LEN: usize = 64;

/// Known words compared at most.
const MAX_KNOWN_WORDS: usize = 256;

/// The nearest of the known words, or `None` where none is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_WORD_LEN {
        return None;
    }
    let folded = fold(word);
    let known: Vec<&str> = known.into_iter().take(MAX_KNOWN_WORDS).collect();
    let near = known.iter().filter_map(|known| Some((distance(word, known)?, *known)));
    let nearest = near.min_by_key(|(distance, _)| *distance);
    let abbreviated = || only(known.iter().filter(|known| known.starts_with(&folded)));
    match nearest {
        Some((0 | 1, word)) => Some(word),
        // `int` is short for `integer` rather than a slip for `list`.
        _ if folded.len() >= 3 => abbreviated().copied().or(nearest.map(|(_, word)| word)),
        _ => nearest.map(|(_, word)| word),
    }
}

/// Edits between two words regardless of case, `-` and blanks; `None` where there are too many for
/// a slip.
pub(crate) fn distance(word: &str, candidate: &str) -> Option<usize> {
    if word.len().max(candidate.len()) > MAX_WORD_LEN {
        return None;
    }
    let (word, candidate) = (fold(word), fold(candidate));
    let limit = max_edits(word.len().max(candidate.len()));
    let is_prefix = candidate.starts_with(&word) || word.starts_with(&candidate);
    if !is_prefix {
        return edits_within(&word, &candidate, limit);
    }
    // A word broken off, or one with a tail, is nearer than its missing letters make it.
    let edits = word.len().abs_diff(candidate.len());
    let edits = if word.len().min(candidate.len()) >= 4 { edits.min(2) } else { edits };
    (edits <= limit).then_some(edits)
}

/// Edits between two words as they stand; `None` for more than `limit`.
pub(crate) fn edits_within(word: &str, other: &str, limit: usize) -> Option<usize> {
    if surely_over(word, other, limit) {
        return None;
    }
    Some(strsim::damerau_levenshtein(word, other)).filter(|edits| *edits <= limit)
}

/// Edits up to which a word of this length is taken for a slip.
fn max_edits(len: usize) -> usize {
    match len {
        0..=3 => 1,
        4..=8 => 2,
        _ => len / 3,
    }
}

fn fold(word: &str) -> String {
    word.to_lowercase().replace(['-', ' '], "_")
}

/// The item, if there is but one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

/// Whether two words differ in so many letters, wherever they stand, that more than `limit` edits
/// lie between them. Far quicker than counting the edits; `false` proves nothing.
fn surely_over(word: &str, other: &str, limit: usize) -> bool {
    if !word.is_ascii() || !other.is_ascii() {
        return false;
    }
    let mut balance = [0_i32; 128];
    for byte in word.bytes() {
        balance[usize::from(byte)] += 1;
    }
    for byte in other.bytes() {
        balance[usize::from(byte)] -= 1;
    }
    let sum = |counts: &mut dyn Iterator<Item = i32>| counts.map(i32::unsigned_abs).sum::<u32>();
    let missing = sum(&mut balance.iter().copied().filter(|count| *count < 0));
    let extra = sum(&mut balance.iter().copied().filter(|count| *count > 0));
    missing.max(extra) as usize > limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        // Typing slips and words broken off find their word; unrelated words find none.
        let known =
            ["rate_limit_num", "rate_limit_duration_secs", "timeout_secs", "integer", "list"];
        for (word, expected) in [
            ("int", Some("integer")),
            ("lst", Some("list")),
            ("rate_limit", Some("rate_limit_num")),
            ("rate-limit-num", Some("rate_limit_num")),
            ("Rate Limit Num", Some("rate_limit_num")),
            ("ratelimitnum", Some("rate_limit_num")),
            ("timeout", Some("timeout_secs")),
            ("tiemout_secs", Some("timeout_secs")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1_000_000), known), None);
    }

    proptest! {
        #[test]
        fn edits_within_limit_agree_with_a_full_count(
            word in "[a-cé_]{0,8}", other in "[a-cé_]{0,8}", limit in 0usize..6,
        ) {
            // The quick check in front never changes the answer.
            let edits = strsim::damerau_levenshtein(&word, &other);
            let expected = (edits <= limit).then_some(edits);
            prop_assert_eq!(edits_within(&word, &other, limit), expected);
        }
    }
}
