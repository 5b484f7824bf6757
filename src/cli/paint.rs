//! Colours of results on stdout.

use std::fmt::Display;

use crate::config::Style;

/// Colours texts, or leaves them plain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(pub(super) Style);

impl Paint {
    /// A heading.
    pub(super) fn bold(self, text: impl Display) -> String {
        self.with("1", text)
    }

    /// What is as it should be.
    pub(super) fn good(self, text: impl Display) -> String {
        self.with("32", text)
    }

    /// What is not.
    pub(super) fn bad(self, text: impl Display) -> String {
        self.with("1;31", text)
    }

    /// What deserves a look.
    pub(super) fn notice(self, text: impl Display) -> String {
        self.with("33", text)
    }

    /// Less important text.
    pub(super) fn faint(self, text: impl Display) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: impl Display) -> String {
        match self.0 {
            Style::Plain => text.to_string(),
            Style::Coloured => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}
