//! Words that mean true or false.

/// Reads `true`, `yes`, `on`, `1`, `t`, `y` and their opposites, without case and without blanks
/// around them.
pub fn parse(word: &str) -> Option<bool> {
    const TRUE: [&str; 6] = ["true", "yes", "on", "1", "t", "y"];
    const FALSE: [&str; 6] = ["false", "no", "off", "0", "f", "n"];
    let word = word.trim();
    let is = |known: &&str| word.eq_ignore_ascii_case(known);
    match (TRUE.iter().any(is), FALSE.iter().any(is)) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boolean_word_in_any_case_is_parsed() {
        // The usual words are read, and no other.
        for (word, value) in [("Yes", Some(true)), (" off ", Some(false)), ("1", Some(true))] {
            assert_eq!(parse(word), value, "{word}");
        }
        for word in ["", "2", "maybe", "truee", "1.0"] {
            assert_eq!(parse(word), None, "{word}");
        }
    }
}
