//! The body of an op's own write, without any look-up.
//!
//! It is not what is sent in every case: a path or body may contain the remote id of a user or
//! company, which only the executor knows, and attributes have the types of the catalogue.

use std::borrow::Cow;

use jiff::Timestamp;

use super::attributes::{ValueType, convert};
use super::endpoint::{companies, events, site_views, users};
use crate::schedule::{FieldClass, Op, PackedFields};

/// The body that writes an op if every custom attribute has the type `string`, which is the type of
/// attributes that the sink creates. A page view has the user's external id as its key; a
/// membership and a merge have no body without remote ids. Missing times are `now`.
pub fn encoded(op: &Op, now: Timestamp) -> Option<String> {
    Some(match op {
        Op::Identify { user, fields, .. } => users::body(user.as_str(), as_strings(fields)),
        Op::Track { user, name, at, data, .. } => {
            let whose = events::UserRef::ExternalUserId(user.as_str());
            events::body(whose, name, Some(at.unwrap_or(now)), data)
        }
        Op::Page { user, domain, path, at, .. } => {
            let view = site_views::View { domain, path, at: at.unwrap_or(now) };
            site_views::body(&site_views::Viewer::Key(user.as_str().into()), view)
        }
        Op::Company { company, fields } => {
            let fields: Vec<_> = as_strings(fields).collect();
            companies::body(company.as_str(), &fields)
        }
        Op::Join { .. } | Op::Merge { .. } => return None,
    })
}

fn as_strings(fields: &PackedFields) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    fields.iter().filter_map(|field| {
        let json = match field.class {
            FieldClass::Custom => convert(field.json, &ValueType::String).ok()?.into_text(),
            FieldClass::Standard | FieldClass::SetUnion => Cow::Borrowed(field.json),
        };
        Some((field.name, json))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Call, CallKind, Object};
    use crate::config::account::AccountConfig;
    use crate::usercom::{PlanWarnings, Settings, WantedKeys, plan_call};

    #[test]
    fn custom_attributes_are_strings() {
        // Numbers and booleans of custom attributes become strings; the external id comes first.
        let mut call = Call::new(CallKind::Identify);
        call.user_id = Some("u\"1".into());
        call.fields = Object::Raw(r#"{"logins":7,"new":true}"#);
        let settings = Settings {
            context_fields: true,
            merge_anonymous: false,
            account: AccountConfig::default(),
            match_by: WantedKeys::NONE,
        };
        let now = Timestamp::UNIX_EPOCH;
        let ops = plan_call(&call, &settings, now, &mut PlanWarnings::default()).unwrap();
        let body = encoded(&ops[0], now).unwrap();
        assert_eq!(body, r#"{"custom_id":"u\"1","logins":"7","new":"true"}"#);
    }
}
