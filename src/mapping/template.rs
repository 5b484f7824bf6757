//! Templates: text with `{{ .path }}` insertions.
//!
//! A missing path inserts nothing; if every path is missing, so is the value. Arrays and objects are
//! inserted as JSON text.

use super::json;
use super::path::{self, Path, PathError};

/// A part of a template.
#[derive(Debug)]
pub(super) enum TemplatePart<P> {
    /// Literal text.
    Text(Box<str>),
    /// The value at a path.
    Insert(P),
}

/// A template with resolved paths.
#[derive(Debug)]
pub(super) struct Template<P>(pub(super) Vec<TemplatePart<P>>);

impl<P> Template<P> {
    /// The paths, in order.
    pub(super) fn paths(&self) -> impl Iterator<Item = &P> {
        self.0.iter().filter_map(|piece| match piece {
            TemplatePart::Text(_) => None,
            TemplatePart::Insert(path) => Some(path),
        })
    }

    /// Renders the template; `None` if all of its paths are missing.
    pub(super) fn render<'r>(&self, get: impl Fn(&P) -> Option<&'r str>) -> Option<String> {
        let mut out = String::new();
        let mut paths = 0;
        let mut found = 0;
        for piece in &self.0 {
            match piece {
                TemplatePart::Text(text) => out.push_str(text),
                TemplatePart::Insert(path) => {
                    paths += 1;
                    if let Some(raw) = get(path) {
                        found += 1;
                        out.push_str(&json::text(raw).unwrap_or(raw.into()));
                    }
                }
            }
        }
        (paths == 0 || found > 0).then_some(out)
    }
}

/// Parses a template. Every error is reported with its byte range.
pub(super) fn parse(text: &str) -> Result<Vec<TemplatePart<(Path, usize)>>, Vec<PathError>> {
    let mut pieces = Vec::new();
    let mut errors = Vec::new();
    let mut at = 0;
    while let Some(open) = text[at..].find("{{") {
        let open = at + open;
        if open > at {
            pieces.push(TemplatePart::Text(text[at..open].into()));
        }
        let Some(end) = end_of_insertion(&text[open + 2..]) else {
            errors.push(PathError {
                plain_text: false,
                range: open..open + 2,
                message: "`{{` has no closing `}}`".into(),
                help: Some("write {{ .path }}".into()),
            });
            return Err(errors);
        };
        let inner = &text[open + 2..open + 2 + end];
        let start = open + 2 + (inner.len() - inner.trim_start().len());
        match path::parse(inner.trim()) {
            Ok(path) => pieces.push(TemplatePart::Insert((path, start))),
            Err(error) => errors.push(insertion_error(error, inner.trim(), start)),
        }
        at = open + 2 + end + 2;
    }
    if at < text.len() {
        pieces.push(TemplatePart::Text(text[at..].into()));
    }
    if errors.is_empty() { Ok(pieces) } else { Err(errors) }
}

/// The offset of `}}` outside of quoted keys.
fn end_of_insertion(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quoted = false;
    let mut n = 0;
    while n < bytes.len() {
        match bytes[n] {
            b'\\' if quoted => n += 1,
            b'"' => quoted = !quoted,
            b'}' if !quoted && bytes.get(n + 1) == Some(&b'}') => return Some(n),
            _ => {}
        }
        n += 1;
    }
    // An unclosed quote must not hide the closing braces.
    text.find("}}")
}

fn insertion_error(error: PathError, inner: &str, start: usize) -> PathError {
    let help = match error.plain_text {
        true => Some(format!("write {{{{ {} }}}}", path::meant_path(inner))),
        false => error.help,
    };
    let (message, range) = if inner.is_empty() {
        ("`{{ }}` names no path".to_owned(), start - 1..start + 1)
    } else {
        let range = start + error.range.start..start + error.range.end;
        (error.message, range)
    };
    PathError {
        plain_text: false,
        range,
        message,
        help: if inner.is_empty() { Some("write {{ .path }}".into()) } else { help },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, value: Option<&'static str>) -> Option<String> {
        Template(parse(template).unwrap()).render(|_| value)
    }

    #[test]
    fn missing_paths_insert_nothing() {
        // A missing path inserts nothing; if all paths are missing, so is the value.
        assert_eq!(render("a {{ .x }}-{{.y}}", Some("\"1\"")).unwrap(), "a 1-1");
        assert_eq!(render("a {{ .x }}", None), None);
        assert_eq!(render("plain", None).unwrap(), "plain");
        assert_eq!(render("{{ .x }}", Some("[1]")).unwrap(), "[1]");
        assert_eq!(render("{{ .\"a}}b\" }}!", Some("1")).unwrap(), "1!");
    }

    #[test]
    fn every_error_has_its_byte_range() {
        // Every invalid insertion is reported with its byte range.
        let errors = parse("{{ x }} {{ .a[b] }} {{ }} {{").unwrap_err();
        let ranges: Vec<_> = errors.iter().map(|e| e.range.clone()).collect();
        assert_eq!(ranges, [3..4, 13..16, 22..24, 26..28]);
        assert_eq!(errors[0].help.as_deref(), Some("write {{ .x }}"));
    }
}
