//! The body of a request under construction: one JSON object, written into one string.

use std::fmt::{Display, Write as _};

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

use crate::call::write_string;
use crate::schedule::PackedFields;

/// The capacity at the start, which suffices for most bodies.
const INITIAL_CAPACITY: usize = 512;

/// A JSON object. The caller keeps the names unique.
pub(in crate::usercom) struct Body(String);

impl Body {
    pub(in crate::usercom) fn new() -> Self {
        let mut text = String::with_capacity(INITIAL_CAPACITY);
        text.push('{');
        Self(text)
    }

    /// A field of JSON text.
    pub(in crate::usercom) fn json(mut self, name: &str, json: &str) -> Self {
        self.name(name).push_str(json);
        self
    }

    /// Fields of JSON text.
    pub(in crate::usercom) fn all<'a>(
        mut self,
        fields: impl IntoIterator<Item = (&'a str, impl AsRef<str>)>,
    ) -> Self {
        for (name, json) in fields {
            self.name(name).push_str(json.as_ref());
        }
        self
    }

    /// A field of text.
    pub(in crate::usercom) fn text(mut self, name: &str, text: &str) -> Self {
        write_string(self.name(name), text);
        self
    }

    /// A field of a number.
    pub(in crate::usercom) fn number(mut self, name: &str, number: impl Display) -> Self {
        write!(self.name(name), "{number}").expect("a string takes all");
        self
    }

    /// A field of a moment, in RFC 3339.
    pub(in crate::usercom) fn moment(mut self, name: &str, at: Timestamp) -> Self {
        let out = self.name(name);
        out.push('"');
        DateTimePrinter::new().print_timestamp(&at, &mut *out).expect("a string takes all");
        out.push('"');
        self
    }

    /// A field of an object.
    pub(in crate::usercom) fn object(mut self, name: &str, fields: &PackedFields) -> Self {
        fields.write_object(self.name(name));
        self
    }

    pub(in crate::usercom) fn done(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn name(&mut self, name: &str) -> &mut String {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        write_string(&mut self.0, name);
        self.0.push(':');
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Field, FieldClass};

    #[test]
    fn request_body_is_one_json_object() {
        // Names and strings are escaped, and there are commas between fields only, also in an
        // object.
        let field = |name, json| Field { name, class: FieldClass::Standard, json };
        let data = PackedFields::from_iter([field("p", "1"), field("q", "{}")]);
        let body = Body::new()
            .text("a\"b", "x\ny")
            .object("none", &PackedFields::default())
            .object("data", &data)
            .number("n", 7)
            .moment("at", Timestamp::from_millisecond(1_500).expect("a moment"))
            .done();
        let expected = r#"{"a\"b":"x\ny","none":{},"data":{"p":1,"q":{}},"n":7,"at":"1970-01-01T00:00:01.5Z"}"#;
        assert_eq!(body, expected);
        assert_eq!(Body::new().done(), "{}");
    }
}
