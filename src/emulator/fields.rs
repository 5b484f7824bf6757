//! The standard fields of users and companies: names, accepted values, and form in responses.
//!
//! # Invariants
//! A field that is returned in another form than it is written in (a choice) is stored as written.

use serde_json::{Value, json};

use super::reply::{NOT_A_STRING, NOT_AN_INTEGER, NULL, too_long};

/// The longest e-mail address, in characters.
const MAX_EMAIL_LEN: usize = 254;
/// The longest address of a page or picture, in characters.
const MAX_LINK_LEN: usize = 255;

/// The two kinds of profile, which have attributes and tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProfileKind {
    User,
    Company,
}

/// What a standard field accepts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Any string.
    Text,
    /// A string of at most this many characters.
    Short(usize),
    Email,
    Integer,
    /// A boolean with its default.
    Flag(bool),
    /// A number from 1 that is returned as a word; the first word is the default.
    Choice(&'static [&'static str]),
    /// A list of strings.
    Texts,
}

const USER_FIELDS: &[(&str, Shape)] = &[
    ("email", Shape::Email),
    ("first_name", Shape::Short(40)),
    ("last_name", Shape::Short(40)),
    ("phone_number", Shape::Short(64)),
    ("city", Shape::Short(64)),
    ("region", Shape::Text),
    ("country", Shape::Text),
    ("gender", Shape::Choice(&["unknown", "male", "female"])),
    ("status", Shape::Choice(&["visitor", "user"])),
    ("score", Shape::Integer),
    ("unsubscribed", Shape::Flag(false)),
    ("notifications", Shape::Flag(true)),
    ("timezone", Shape::Text),
    ("gravatar_url", Shape::Short(MAX_LINK_LEN)),
    ("facebook_url", Shape::Short(MAX_LINK_LEN)),
    ("linkedin_url", Shape::Short(MAX_LINK_LEN)),
    ("twitter_url", Shape::Short(MAX_LINK_LEN)),
    ("google_url", Shape::Short(MAX_LINK_LEN)),
    ("assigned_to", Shape::Integer),
];

const COMPANY_FIELDS: &[(&str, Shape)] = &[
    ("name", Shape::Text),
    ("email", Shape::Email),
    ("address", Shape::Text),
    ("city", Shape::Text),
    ("region", Shape::Text),
    ("country", Shape::Text),
    ("postal_code", Shape::Text),
    ("description", Shape::Text),
    ("phone_numbers", Shape::Texts),
    ("size", Shape::Integer),
    ("assigned_to", Shape::Integer),
];

/// Keys of a response that a request cannot write; they are ignored and not counted.
pub(super) const READ_ONLY: &[&str] = &[
    "id",
    "lists",
    "companies",
    "attributes",
    "employees",
    "members",
    "page_views",
    "first_seen",
    "last_seen",
    "last_contacted",
    "created_at",
    "updated_at",
];

impl ProfileKind {
    /// The content type of the attributes; also the value in the table of tags.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::User => "clientuser",
            Self::Company => "company",
        }
    }

    pub(super) fn fields(self) -> &'static [(&'static str, Shape)] {
        match self {
            Self::User => USER_FIELDS,
            Self::Company => COMPANY_FIELDS,
        }
    }

    pub(super) fn shape(self, field: &str) -> Option<Shape> {
        self.fields().iter().find(|(name, _)| *name == field).map(|(_, shape)| *shape)
    }

    /// Whether the API returns a field of this name, so that no attribute may have it.
    pub(super) fn is_standard(self, name: &str) -> bool {
        name == "custom_id"
            || name == "tags"
            || self.shape(name).is_some()
            || (self == Self::User && (name == "company_custom_id" || name == "user_key"))
    }

    pub(super) fn table(self) -> &'static str {
        match self {
            Self::User => "users",
            Self::Company => "companies",
        }
    }
}

/// Checks a value of a standard field and returns it as stored.
pub(super) fn check_field(shape: Shape, value: &Value) -> Result<Value, String> {
    if value.is_null() {
        return Err(NULL.into());
    }
    let text = || value.as_str().ok_or_else(|| NOT_A_STRING.to_owned());
    match shape {
        Shape::Text => text().map(|_| ()),
        Shape::Short(max) if text()?.chars().count() > max => Err(too_long(max)),
        Shape::Short(_) => Ok(()),
        Shape::Email if is_email(text()?) => Ok(()),
        Shape::Email => Err("Enter a valid email address.".into()),
        Shape::Integer if value.is_i64() => Ok(()),
        Shape::Integer => Err(NOT_AN_INTEGER.into()),
        Shape::Flag(_) if value.is_boolean() => Ok(()),
        Shape::Flag(_) => Err("Must be a valid boolean.".into()),
        Shape::Choice(words) => match value.as_u64() {
            Some(number) if (1..=words.len() as u64).contains(&number) => Ok(()),
            _ => Err(format!(
                "\"{}\" is not a valid choice.",
                value.as_str().map_or_else(|| value.to_string(), str::to_owned)
            )),
        },
        Shape::Texts => match value.as_array() {
            None => Err(format!("Expected a list of items but got type \"{}\".", json_type(value))),
            Some(items) if items.iter().all(Value::is_string) => Ok(()),
            Some(_) => Err(NOT_A_STRING.into()),
        },
    }?;
    Ok(value.clone())
}

pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// An empty string clears the field. Otherwise as Django's validator: a local part of letters,
/// digits and some signs with single dots, or a quoted one, and a domain of at least two labels (or
/// `localhost`, or an address in brackets).
fn is_email(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    text.chars().count() <= MAX_EMAIL_LEN && is_local(local) && is_domain(domain)
}

fn is_local(local: &str) -> bool {
    if let Some(quoted) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return quoted.chars().all(|c| c.is_ascii() && !c.is_ascii_control() && c != '"');
    }
    let is_atom = |atom: &str| {
        let sign = |c: char| c.is_ascii_alphanumeric() || "-!#$%&'*+/=?^_`{}|~".contains(c);
        !atom.is_empty() && atom.chars().all(sign)
    };
    local.split('.').all(is_atom)
}

fn is_domain(domain: &str) -> bool {
    if let Some(address) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::IpAddr>().is_ok();
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.chars().count())
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels: Vec<&str> = domain.split('.').collect();
    let last = labels.last().copied().unwrap_or_default();
    domain.eq_ignore_ascii_case("localhost")
        || (labels.len() > 1
            && labels.iter().all(|label| is_label(label))
            && !last.chars().all(|c| c.is_ascii_digit()))
}

/// A stored value as a response shows it, or the default.
pub(super) fn shown(shape: Shape, stored: Option<Value>) -> Value {
    match (shape, stored) {
        (Shape::Choice(words), stored) => {
            let number = stored.as_ref().and_then(Value::as_u64).unwrap_or(1);
            let index = usize::try_from(number).unwrap_or(1).saturating_sub(1);
            json!(words.get(index))
        }
        (_, Some(value)) => value,
        (Shape::Flag(default), None) => json!(default),
        (Shape::Texts, None) => json!([]),
        (_, None) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn email_check_agrees_with_django() {
        // Guarantees that addresses are accepted exactly as by Django's validator.
        for good in [
            "a@b.pl",
            "a.b+c@x-y.co.uk",
            "\"a b\"@x.com",
            "a@localhost",
            "a@[127.0.0.1]",
            "a@żółw.pl",
        ] {
            assert!(is_email(good), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(250));
        for bad in [
            "nope",
            "a@b",
            "a b@x.com",
            "a..b@x.com",
            ".a@x.com",
            "a@-x.com",
            "a@x..com",
            "a@1.2.3.4",
            "@x.com",
            "a@",
            &long,
        ] {
            assert!(!is_email(bad), "{bad}");
        }
    }
}
