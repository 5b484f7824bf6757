//! The keys of a call, normalized so that equal keys are equal strings.

use std::borrow::Cow;

use crate::call::{Call, CallKind, Object, trimmed};
use crate::config::sink::MatchBy;
use crate::schedule::{KeyKind, PackedFields, UserKeys};
use crate::usercom::profile::text;

/// The longest key that is looked up, in characters.
const MAX_KEY_LEN: usize = 254;
/// A string with fewer digits is not the telephone number of one person.
const MIN_PHONE_DIGITS: usize = 5;

/// Spellings in the traits of a context.
const EMAILS: [&str; 4] = ["email", "Email", "email_address", "emailAddress"];
const PHONES: [&str; 4] = ["phone", "phone_number", "phoneNumber", "mobile"];

/// Which kinds of keys are looked up, so that no others are parsed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WantedKeys {
    user_key: bool,
    email: bool,
    phone: bool,
}

impl WantedKeys {
    /// No keys.
    pub const NONE: Self = Self { user_key: false, email: false, phone: false };
}

impl From<&[MatchBy]> for WantedKeys {
    fn from(match_by: &[MatchBy]) -> Self {
        Self {
            user_key: match_by.contains(&MatchBy::UserKey),
            email: match_by.contains(&MatchBy::Email),
            phone: match_by.contains(&MatchBy::Phone),
        }
    }
}

/// The keys of a call: from the fields that an identify call writes, otherwise from the traits of
/// the context. The traits of a group call are those of its company.
pub(in crate::usercom) fn of_call(
    call: &Call<'_>,
    fields: Option<&PackedFields>,
    wanted: WantedKeys,
) -> UserKeys {
    let mut keys = UserKeys::default();
    if wanted == WantedKeys::NONE || call.kind == CallKind::Alias {
        return keys;
    }
    let context = inner(&call.context, "traits");
    let mut find = |kind, field: &str, names: &[&str]| {
        let written = fields.and_then(|fields| fields.get(field));
        let others = names.iter().filter_map(|name| context.as_ref()?.get(name));
        let mut values = written.into_iter().chain(others);
        if let Some(found) = values.find_map(|json| normalized(kind, &text(json)?)) {
            keys.set(kind, found);
        }
    };
    if wanted.email {
        find(KeyKind::Email, "email", &EMAILS);
    }
    if wanted.phone {
        find(KeyKind::Phone, "phone_number", &PHONES);
    }
    if wanted.user_key {
        match call.user_key.as_deref().and_then(|key| normalized(KeyKind::UserKey, key)) {
            Some(key) => keys.set(KeyKind::UserKey, key),
            None => find(KeyKind::UserKey, "user_key", &["user_key"]),
        }
    }
    keys
}

/// The object at a key of an object.
fn inner<'c>(object: &'c Object<'_>, name: &str) -> Option<Object<'c>> {
    object.get(name).filter(|json| json.starts_with('{')).map(Object::Raw)
}

/// A key as it is compared, or `None` if the string is not a key: e-mail addresses trimmed and in
/// lower case, telephone numbers as digits and a leading plus.
pub(in crate::usercom) fn normalized(kind: KeyKind, value: &str) -> Option<String> {
    let value = trimmed(value);
    let key: Cow<'_, str> = match kind {
        KeyKind::UserKey => value.into(),
        KeyKind::Email => {
            let (local, domain) = value.rsplit_once('@')?;
            (!local.is_empty() && !domain.is_empty()).then_some(())?;
            value.to_lowercase().into()
        }
        KeyKind::Phone => {
            let digits: String = value.chars().filter(char::is_ascii_digit).collect();
            (digits.len() >= MIN_PHONE_DIGITS).then_some(())?;
            match value.starts_with('+') {
                true => format!("+{digits}").into(),
                false => digits.into(),
            }
        }
    };
    let odd = |c: char| c.is_whitespace() || c.is_control();
    let is_key = !key.is_empty() && key.chars().count() <= MAX_KEY_LEN && !key.contains(odd);
    is_key.then(|| key.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compared_without_what_people_vary() {
        // E-mail addresses are compared without case and surrounding blanks, telephone numbers by
        // digits and plus; a string that identifies no single person is not a key.
        use KeyKind::{Email, Phone, UserKey};
        for (kind, value, key) in [
            (Email, " Ann@Example.COM ", Some("ann@example.com")),
            (Email, "ŻANETA@x.pl", Some("żaneta@x.pl")),
            (Email, "ann", None),
            (Email, "@x", None),
            (Email, "a b@x.y", None),
            (Phone, "+48 (600) 100-200", Some("+48600100200")),
            (Phone, "0048 600.100.200", Some("0048600100200")),
            (Phone, " 600100200 ", Some("600100200")),
            (Phone, "none", None),
            (Phone, "+0", None),
            (UserKey, " aBcD12 ", Some("aBcD12")),
            (UserKey, "", None),
            (UserKey, "a\nb", None),
        ] {
            assert_eq!(normalized(kind, value).as_deref(), key, "{kind:?} {value:?}");
        }
    }
}
