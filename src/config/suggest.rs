//! "Did you mean": the known word nearest to an unknown one.

/// Words longer than this are no slips, and comparing them takes long, in bytes.
const MAX_WORD: usize = 64;

/// Known words compared at most. Files may define any number of names.
const MAX_KNOWN: usize = 256;

/// Faults of one file that are given words to choose from: looking for them takes long, and of
/// later faults only the number is shown.
const MAX_HELPED: usize = 1_000;

/// The nearest of the known words, if one is near enough to be what was meant.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let folded = fold(word);
    let known: Vec<&str> = known.filter(|known| known.len() <= MAX_WORD).take(MAX_KNOWN).collect();
    let near = known
        .iter()
        .map(|candidate| (distance(&folded, &fold(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= limit(word.len().max(candidate.len())));
    let abbreviated = || only(known.iter().filter(|known| known.starts_with(&folded)));
    let nearest = near.min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((0 | 1, word)) => Some(word),
        // `int` is short for `integer` rather than a slip for `list`.
        _ if folded.len() >= 3 => abbreviated().copied().or(nearest.map(|(_, word)| word)),
        _ => nearest.map(|(_, word)| word),
    }
}

/// The item, if there is but one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

fn fold(word: &str) -> String {
    word.to_lowercase().replace(['-', ' '], "_")
}

fn distance(word: &str, candidate: &str) -> usize {
    // Each missing letter is an edit.
    let (length, other) = (word.len(), candidate.len());
    let is_part = candidate.starts_with(word) || word.starts_with(candidate);
    if !is_part && word.is_ascii() && length.abs_diff(other) > limit(length.max(other)) {
        return usize::MAX;
    }
    if !is_part && surely_over(word, candidate, limit(length.max(other))) {
        return usize::MAX;
    }
    let edits = strsim::damerau_levenshtein(word, candidate);
    // A word broken off, or one with a tail, is nearer than its missing letters make it.
    let prefix = word.len().min(candidate.len()) >= 4
        && (candidate.starts_with(word) || word.starts_with(candidate));
    if prefix { edits.min(2) } else { edits }
}

/// Whether two words differ in so many letters, wherever they stand, that more edits than `most` lie
/// between them. Far quicker than counting the edits, and `false` proves nothing.
pub(super) fn surely_over(word: &str, other: &str, most: usize) -> bool {
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
    let (mut missing, mut extra) = (0_usize, 0_usize);
    for count in balance {
        let count_of = count.unsigned_abs() as usize;
        if count > 0 {
            extra += count_of;
        } else {
            missing += count_of;
        }
    }
    missing.max(extra) > most
}

fn limit(length: usize) -> usize {
    match length {
        0..=3 => 1,
        4..=8 => 2,
        _ => length / 3,
    }
}

/// `` `a`, `b` or `c` ``.
pub(crate) fn list<'a>(words: impl IntoIterator<Item = &'a str>, joint: &str) -> String {
    let words: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} {joint} {last}", rest.join(", ")),
    }
}

/// As `instead`, for a fault that so many others come before.
pub(crate) fn instead_behind(faults: usize, word: &str, known: &[&str], what: &str) -> String {
    match faults < MAX_HELPED {
        true => instead(word, known, what),
        false => "put the faults before this one right first".to_owned(),
    }
}

/// Help for an unknown word: the nearest one, or all of them.
pub(crate) fn instead(word: &str, known: &[&str], what: &str) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("there is no {what} to choose from"),
        None if known.len() > MAX_LISTED => {
            let first = list(known[..MAX_LISTED].iter().copied(), "or");
            format!("{what}: {first}, and {} more", known.len() - MAX_LISTED)
        }
        None => format!("{what}: {}", list(known.iter().copied(), "or")),
    }
}

/// Known words listed at most.
const MAX_LISTED: usize = 60;

/// What is wrong with a regular expression, in one line. The engine draws a picture of many lines;
/// its last line says why.
pub(crate) fn regex_fault(error: &regex::Error) -> String {
    let drawn = error.to_string();
    let last = drawn.lines().next_back().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("ratelimitnum", Some("rate_limit_num")),
            ("timeout", Some("timeout_secs")),
            ("tiemout_secs", Some("timeout_secs")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), expected, "{word}");
        }
    }
}
