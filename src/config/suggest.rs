//! Help texts for unknown words and bad regular expressions.

use crate::suggest::nearest;

/// The most faults of one file that get suggestions: finding them takes long, and of later faults
/// only the number is shown.
const MAX_SUGGESTED_FAULTS: usize = 1_000;

/// `` `a`, `b` or `c` ``.
pub(crate) fn list<'a>(words: impl IntoIterator<Item = &'a str>, joint: &str) -> String {
    let words: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} {joint} {last}", rest.join(", ")),
    }
}

/// As `instead`, for a fault that is preceded by this many others.
pub(crate) fn instead_behind(faults: usize, word: &str, known: &[&str], what: &str) -> String {
    match faults < MAX_SUGGESTED_FAULTS {
        true => instead(word, known, what),
        false => "fix the faults before this one first".to_owned(),
    }
}

/// Help for an unknown word: the nearest known one, or all of them.
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

/// The most known words that are listed.
const MAX_LISTED: usize = 60;

/// The cause of a regular expression error, on one line. The engine's message has many lines; the
/// last one has the cause.
pub(crate) fn regex_fault(error: &regex::Error) -> String {
    let drawn = error.to_string();
    let last = drawn.lines().next_back().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}
