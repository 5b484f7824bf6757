//! Where `${{ secrets.NAME }}` gets its values: a file of `NAME=value` lines, or the environment.
//!
//! Invariant: a value is shown by nothing here, `Debug` included.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use crate::config::{Environment, Report, SourceText};

/// The secrets of a connector.
#[derive(Clone, Default)]
pub enum Secrets {
    /// Environment variables of the names.
    #[default]
    Environment,
    /// Lines of a file.
    File(BTreeMap<String, SecretString>),
}

impl Secrets {
    /// Reads a file of `NAME=value` lines, as Fluvio does: blanks around name and value are none of
    /// theirs, of two lines with one name the first counts, and other lines mean nothing.
    ///
    /// # Errors
    /// A report with one fault, if the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, Report> {
        Ok(Self::parse(&SourceText::read(path)?.text))
    }

    fn parse(text: &str) -> Self {
        let mut secrets = BTreeMap::new();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = || SecretString::from(value.trim().to_owned());
            secrets.entry(name.trim().to_owned()).or_insert_with(value);
        }
        Self::File(secrets)
    }

    /// The value of a secret.
    pub(super) fn get(&self, name: &str, environment: &dyn Environment) -> Option<String> {
        match self {
            Self::Environment => environment.var(name),
            Self::File(secrets) => Some(secrets.get(name)?.expose_secret().to_owned()),
        }
    }

    /// Where a missing secret is to be written.
    pub(super) fn place(&self) -> &'static str {
        match self {
            Self::Environment => {
                "set the environment variable of that name, or give `--secrets FILE`"
            }
            Self::File(_) => "add a line `NAME=value` to the file of `--secrets`",
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::File(secrets) => f.debug_list().entries(secrets.keys()).finish(),
        }
    }
}

/// Whether a secret can be called so.
pub(super) fn is_secret_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FixedEnvironment;

    #[test]
    fn secrets_file_lines_are_names_and_values() {
        // Values are what stands behind the first `=`, without the blanks around; the first line of
        // a name counts; lines without `=` mean nothing.
        let text = "# keys\n\nKEY=a=b \r\n OTHER =  x y\t\nKEY=second\nno line\nNONE=\n";
        let secrets = Secrets::parse(text);
        let none = FixedEnvironment::default();
        assert_eq!(secrets.get("KEY", &none).unwrap(), "a=b");
        assert_eq!(secrets.get("OTHER", &none).unwrap(), "x y");
        assert_eq!(secrets.get("NONE", &none).unwrap(), "");
        assert_eq!(secrets.get("MISSING", &none), None);
        assert!(!format!("{secrets:?}").contains("a=b"));
    }
}
