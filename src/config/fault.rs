//! A fault in a pipeline file, before its position is known: which value, what is wrong, what to
//! write instead. A check names the value by its path; the document finds its position.

use std::fmt;
use std::ops::Range;

/// The path from the root of a pipeline file to one value: `sinks.crm.mapping[0].fields.user_id`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ConfigPath(pub Vec<Segment>);

/// One step of a [`ConfigPath`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Into a table.
    Key(String),
    /// Into an array.
    Index(usize),
}

impl ConfigPath {
    /// This path with one more key.
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.with(Segment::Key(key.into()))
    }

    /// This path with one more index.
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut path = self.clone();
        path.0.push(segment);
        path
    }
}

impl fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(i) => write!(f, "[{i}]")?,
                Segment::Key(key) => {
                    let bare = !key.is_empty()
                        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                    let dot = if n == 0 { "" } else { "." };
                    if bare {
                        write!(f, "{dot}{key}")?;
                    } else {
                        write!(f, "{dot}{key:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Which part of a value a fault points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The whole value.
    Value,
    /// The key of the value.
    Key,
    /// A byte range of a string value, after `${}` and escapes are resolved.
    Part(Range<usize>),
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Stable code: `E0102`.
    pub code: &'static str,
    /// The faulty value. A path that does not exist points at its nearest parent.
    pub path: ConfigPath,
    /// Which part of it.
    pub target: Target,
    /// What is wrong: lower case, names the wrong thing.
    pub message: String,
    /// How to correct it.
    pub help: Option<String>,
}
