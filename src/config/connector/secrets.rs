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
    /// Reads a file of `NAME=value` lines. Empty lines and lines that begin with `#` mean nothing;
    /// a value is everything behind the first `=`.
    ///
    /// # Errors
    /// A report with one fault, if the file cannot be read or has a line of another form. The line
    /// is told by its number.
    pub fn read(path: &Path) -> Result<Self, Report> {
        let text = SourceText::read(path)?;
        Self::parse(&text.text).map_err(|line| {
            let message = format!("{}:{line}: this is no `NAME=value`", text.name);
            let help = "names are letters, digits and `_`, and do not begin with a digit";
            Report::unplaced("E0406", message, Some(help.to_owned()))
        })
    }

    fn parse(text: &str) -> Result<Self, usize> {
        let mut secrets = BTreeMap::new();
        for (line, number) in text.lines().zip(1..) {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once('=').ok_or(number)?;
            let name = name.trim();
            if !is_secret_name(name) {
                return Err(number);
            }
            secrets.insert(name.to_owned(), SecretString::from(value.to_owned()));
        }
        Ok(Self::File(secrets))
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
    fn lines_are_names_and_values() {
        // Values keep everything behind the first `=`; other lines are told by their number.
        let text = "# keys\n\nKEY=a=b \r\nOTHER= x\n";
        let secrets = Secrets::parse(text).unwrap();
        let none = FixedEnvironment::default();
        assert_eq!(secrets.get("KEY", &none).unwrap(), "a=b ");
        assert_eq!(secrets.get("OTHER", &none).unwrap(), " x");
        assert_eq!(secrets.get("MISSING", &none), None);
        assert!(!format!("{secrets:?}").contains("a=b"));
        assert_eq!(Secrets::parse("KEY=1\nno line\n").unwrap_err(), 2);
        assert_eq!(Secrets::parse("1KEY=1").unwrap_err(), 1);
    }
}
