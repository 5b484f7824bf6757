//! Parsing of paths: `.a.b[0]."odd key"[-1]`, `^.x`, `%headers.x`.
//!
//! # Invariants
//! A parsed path has at most [`MAX_STEPS`] steps, so recursion along a path is bounded.

use std::ops::Range;

/// Steps of a path at most.
pub(super) const MAX_STEPS: usize = 64;

/// Where a path starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    /// `.`: the record; inside `foreach` and `each`, the element.
    Here,
    /// `^.`: the record, from inside `foreach`.
    Record,
    /// `%`: the transport metadata.
    Meta,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathStep {
    /// Into an object.
    Key(String),
    /// Into an array, counted from its start.
    Index(u32),
    /// Into an array, counted from its end; 1 is the last element.
    FromEnd(u32),
}

/// A path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) root: Root,
    pub(super) steps: Vec<PathStep>,
}

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathError {
    /// Whether the text looks like a literal rather than a path with an error.
    pub(super) plain_text: bool,
    /// The byte range of the error.
    pub(super) range: Range<usize>,
    /// What is wrong.
    pub(super) message: String,
    /// What to write instead.
    pub(super) help: Option<String>,
}

impl PathError {
    fn new(range: Range<usize>, message: impl Into<String>, help: Option<String>) -> Self {
        Self { plain_text: false, range, message: message.into(), help }
    }
}

/// Reads a path.
pub(super) fn parse(text: &str) -> Result<Path, PathError> {
    let (root, start) = match text.as_bytes().first() {
        Some(b'.') => (Root::Here, 0),
        Some(b'^') if text[1..].starts_with('.') => (Root::Record, 1),
        Some(b'^') => {
            return Err(PathError::new(
                0..text.len(),
                format!("`{text}` lacks the dot after `^`"),
                Some(format!("write `^.{}`", &text[1..])),
            ));
        }
        Some(b'%') => (Root::Meta, 1),
        _ => return Err(not_a_path(text)),
    };
    let mut parser = Parser { text, at: start };
    let steps = parser.steps(root)?;
    if steps.len() > MAX_STEPS {
        return Err(PathError::new(
            0..text.len(),
            format!("the path has {} steps; at most {MAX_STEPS} are allowed", steps.len()),
            None,
        ));
    }
    Ok(Path { root, steps })
}

/// The path that a text without the leading dot probably means: JSONPath (`$.a.b`, `$['a']`), a JSON
/// Pointer (`/a/b`) or plain keys (`a.b`).
pub(super) fn meant_path(text: &str) -> String {
    if let Some(path) = from_other_notation(text) {
        return path;
    }
    if text.split('.').all(is_bare) {
        return format!(".{text}");
    }
    format!(".{}", serde_json::Value::from(text))
}

fn from_other_notation(text: &str) -> Option<String> {
    let path = match (text.strip_prefix('$'), text.strip_prefix('/')) {
        (Some(""), _) => ".".to_owned(),
        (Some(rest), _) if rest.starts_with(['.', '[']) => rest.to_owned(),
        (_, Some(pointer)) => pointer.split('/').map(|key| format!(".{key}")).collect(),
        _ => return None,
    };
    // Bracketed keys are quoted keys after a dot.
    let path = path.replace(".[", "[");
    let path = path.replace("['", ".\"").replace("']", "\"");
    let path = path.replace("[\"", ".\"").replace("\"]", "\"");
    let path = if path.starts_with('[') { format!(".{path}") } else { path };
    parse(&path).is_ok().then_some(path)
}

fn not_a_path(text: &str) -> PathError {
    let quoted = serde_json::Value::from(text);
    let path = meant_path(text);
    PathError {
        plain_text: true,
        range: 0..text.len(),
        message: format!("{quoted} is not a path: a path starts with a dot"),
        help: Some(format!(
            "write `{path}` to read the record, or {{ value = {quoted} }} for the text itself"
        )),
    }
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.chars().all(is_bare_char)
}

fn is_bare_char(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !".[]{}\"'`|,^%".contains(c)
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn steps(&mut self, root: Root) -> Result<Vec<PathStep>, PathError> {
        let mut steps = Vec::new();
        if root == Root::Meta {
            if self.rest().is_empty() {
                return Ok(steps);
            }
            steps.push(self.key()?);
        } else if self.rest() == "." {
            return Ok(steps);
        } else if self.rest().starts_with(".[") {
            self.at += 1;
        }
        while let Some(next) = self.rest().chars().next() {
            match next {
                '.' => {
                    self.at += 1;
                    steps.push(self.key()?);
                }
                '[' => steps.push(self.index()?),
                other => {
                    return Err(PathError::new(
                        self.at..self.at + other.len_utf8(),
                        format!("`{}` stands where `.` or `[` should", other.escape_debug()),
                        Some("write a key with odd characters in quotes: .\"odd key\"".into()),
                    ));
                }
            }
        }
        Ok(steps)
    }

    fn key(&mut self) -> Result<PathStep, PathError> {
        if self.rest().starts_with('"') {
            return self.quoted_key();
        }
        let len = self.rest().find(|c| !is_bare_char(c)).unwrap_or(self.rest().len());
        if len == 0 {
            let end = (self.at + 1).min(self.text.len());
            let end = (end..=self.text.len())
                .find(|i| self.text.is_char_boundary(*i))
                .unwrap_or(self.text.len());
            return Err(PathError::new(
                self.at.min(end)..end,
                "a key is missing here".to_owned(),
                Some("write a key after the dot; special ones in quotes: .\"odd key\"".into()),
            ));
        }
        let key = self.rest()[..len].to_owned();
        self.at += len;
        Ok(PathStep::Key(key))
    }

    fn quoted_key(&mut self) -> Result<PathStep, PathError> {
        let start = self.at;
        let mut key = String::new();
        let mut escaped = false;
        for (offset, c) in self.text[start + 1..].char_indices() {
            match c {
                _ if escaped => {
                    if c != '"' && c != '\\' {
                        let at = start + 1 + offset;
                        return Err(PathError::new(
                            at - 1..at + c.len_utf8(),
                            format!("`\\{}` is not an escape of a quoted key", c.escape_debug()),
                            Some("only \\\" and \\\\ are".into()),
                        ));
                    }
                    key.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.at = start + 1 + offset + 1;
                    return Ok(PathStep::Key(key));
                }
                _ => key.push(c),
            }
        }
        Err(PathError::new(
            start..self.text.len(),
            "the quoted key has no closing quote".to_owned(),
            None,
        ))
    }

    fn index(&mut self) -> Result<PathStep, PathError> {
        let start = self.at;
        let Some(len) = self.rest().find(']') else {
            return Err(PathError::new(
                start..self.text.len(),
                "`[` has no closing `]`".to_owned(),
                None,
            ));
        };
        let inner = &self.rest()[1..len];
        let (digits, from_end) = match inner.strip_prefix('-') {
            Some(digits) => (digits, true),
            None => (inner, false),
        };
        let number = digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse::<u32>().ok())
            .flatten()
            .filter(|n| !(from_end && *n == 0));
        let Some(number) = number else {
            return Err(PathError::new(
                start..start + len + 1,
                format!("`[{}]` is not an index", inner.escape_debug()),
                Some("write [0] for the first element, [-1] for the last".into()),
            ));
        };
        self.at = start + len + 1;
        Ok(if from_end { PathStep::FromEnd(number) } else { PathStep::Index(number) })
    }
}

/// Splits a dotted name into keys: `address.city`, `"a.b".c`.
pub(super) fn parse_name(text: &str) -> Result<Vec<String>, PathError> {
    let mut parser = Parser { text, at: 0 };
    let mut keys = Vec::new();
    loop {
        match parser.key()? {
            PathStep::Key(key) => keys.push(key),
            PathStep::Index(_) | PathStep::FromEnd(_) => {}
        }
        if parser.rest().is_empty() {
            return Ok(keys);
        }
        if !parser.rest().starts_with('.') {
            let len = parser.rest().chars().next().map_or(0, char::len_utf8);
            return Err(PathError::new(
                parser.at..parser.at + len,
                format!("`{}` stands where a dot should", parser.rest().escape_debug()),
                Some("write a name with unusual characters in quotes: traits.\"odd name\"".into()),
            ));
        }
        parser.at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<PathStep> {
        parse(text).unwrap().steps
    }

    #[test]
    fn path_with_every_kind_of_step_is_parsed() {
        // Keys, quoted keys with dots and escapes, and both kinds of index are distinguished.
        assert_eq!(
            steps(r#".a.b-c[0]."odd \"k\\ey.x"[-1]"#),
            [
                PathStep::Key("a".into()),
                PathStep::Key("b-c".into()),
                PathStep::Index(0),
                PathStep::Key(r#"odd "k\ey.x"#.into()),
                PathStep::FromEnd(1),
            ]
        );
        assert_eq!(steps("."), []);
        assert_eq!(steps(".[2].a"), [PathStep::Index(2), PathStep::Key("a".into())]);
        assert_eq!(steps(r#"."""#), [PathStep::Key(String::new())]);
        assert_eq!(parse("^.").unwrap().root, Root::Record);
        assert_eq!(parse("%headers.x").unwrap().root, Root::Meta);
    }

    #[test]
    fn every_error_has_its_byte_range() {
        // Every error has its byte range, on character boundaries.
        for (text, range) in [
            ("user.id", 0..7),
            (".a..b", 3..4),
            (".a.", 3..3),
            (".a[x]", 2..5),
            (".a[-0]", 2..6),
            (".a[", 2..3),
            (".a b", 2..3),
            (".\"a", 1..3),
            ("^x", 0..2),
            ("", 0..0),
            (".a.ż{", 5..6),
            (".a.\u{a0}", 3..5),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.range, range, "{text}: {}", error.message);
            assert!(text.get(error.range).is_some(), "{text}");
        }
    }

    #[test]
    fn plain_text_is_answered_with_path_and_literal() {
        // For a word without the dot, the help shows both the path and the literal.
        let help = parse("user.id").unwrap_err().help.unwrap();
        assert!(help.contains("`.user.id`") && help.contains("{ value = \"user.id\" }"));
    }

    #[test]
    fn other_notations_are_answered_with_the_path_they_mean() {
        // Guarantees that JSONPath and JSON Pointers get a path that reads the same value.
        for (written, meant) in [
            ("$.data.title", ".data.title"),
            ("$", "."),
            ("$['odd key'].x", ".\"odd key\".x"),
            ("$.list[0].x", ".list[0].x"),
            ("$[0]", ".[0]"),
            ("/data/title", ".data.title"),
            ("", ".\"\""),
            ("two words", ".\"two words\""),
            ("$$", ".$$"),
        ] {
            let help = parse(written).unwrap_err().help.unwrap();
            assert!(help.contains(&format!("`{meant}`")), "{written}: {help}");
        }
    }
}
