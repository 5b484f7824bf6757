//! A fault in a pipeline file, before it has a place on the screen: which value, what is wrong,
//! what to write instead. Who finds a fault names the value by its path; the document knows where
//! that path stands in the file.

use std::fmt;
use std::ops::Range;

/// The way from the root of a pipeline file to one value: `sinks.crm.mapping[0].fields.user_id`.
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
    /// This path and one key more.
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.with(Segment::Key(key.into()))
    }

    /// This path and one index more.
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
    /// The key the value stands under.
    Key,
    /// A byte range of a string value, as written after `${}` and escapes are resolved.
    Part(Range<usize>),
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Stable code: `E0102`.
    pub code: &'static str,
    /// The value at fault. A path that does not exist points at its nearest parent.
    pub path: ConfigPath,
    /// Which part of it.
    pub target: Target,
    /// What is wrong: lower case, naming the offending thing.
    pub message: String,
    /// What to write.
    pub help: Option<String>,
}
