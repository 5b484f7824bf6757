//! The body of an op's own write, without anybody being looked up.
//!
//! Not what is sent in every case: a user's or company's number may stand in a path or body, which
//! only the executor learns, and attributes have the types the catalogue tells. Invariant: pure.

use std::borrow::Cow;

use jiff::Timestamp;

use super::attributes::{ValueType, convert};
use super::endpoint::{companies, events, site_views, users};
use crate::schedule::{FieldClass, Op, PackedFields};

/// The body that writes an op where every custom attribute is one of type `string`, which is what
/// attributes are that the sink creates. A page view is written under the user's own id for a key,
/// a membership and a merge have no body without numbers. Moments that are not given are `now`.
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
        // Numbers and truths of custom attributes become texts; the customer's id stands first.
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
