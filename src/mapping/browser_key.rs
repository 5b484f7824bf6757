//! The key of a user's browser in Segment's JSON: an external id of the context with the type
//! `user_key`, the settings of User.com in `integrations`, or a trait of the context.

use std::borrow::Cow;

use memchr::memmem;

use super::json::{self, JsonKind};
use super::{field, integrations, preset};
use crate::call::{self, Object};
use crate::mapping::json_value::JsonValue;

/// Names of the list of external ids: Segment's and RudderStack's.
const EXTERNAL_IDS: [&str; 2] = ["externalIds", "externalId"];

/// The key that an event names.
pub(super) fn read<'r>(context: &Object<'_>, integrations: Option<&str>) -> Option<Cow<'r, str>> {
    if may_have_key(context) {
        let listed = EXTERNAL_IDS.iter().find_map(|name| listed(context.get(name)?));
        if listed.is_some() {
            return listed;
        }
    }
    let settings = integrations.filter(|raw| mentions(raw)).and_then(integrations::settings);
    settings.and_then(|settings| key_in(&Object::Raw(settings))).or_else(|| {
        may_have_key(context).then(|| preset::inner(context, "traits"))?.and_then(|t| key_in(&t))
    })
}

/// Most contexts have no key: one search in the text avoids parsing most of them.
fn may_have_key(context: &Object<'_>) -> bool {
    match context {
        Object::Raw(text) => mentions(text),
        Object::Parsed(fields) => fields.iter().any(|(_, json)| mentions(json.as_str())),
    }
}

fn mentions(json: &str) -> bool {
    [&b"user_key"[..], b"userKey"].iter().any(|name| memmem::find(json.as_bytes(), name).is_some())
}

/// The key among external ids: a list of objects, or one object.
fn listed<'r>(json: &str) -> Option<Cow<'r, str>> {
    let is_key = |raw: &str| {
        let kind = json::text(raw).unwrap_or_default();
        matches!(kind.trim(), "user_key" | "userKey")
    };
    let of = |raw: &str| {
        let entry = (JsonKind::of(raw) == JsonKind::Object).then_some(Object::Raw(raw))?;
        entry.get("type").filter(|kind| is_key(kind))?;
        id(entry.get("id")?)
    };
    match JsonKind::of(json) {
        JsonKind::Array => call::elements(json).find_map(of),
        _ => of(json),
    }
}

fn key_in<'r>(object: &Object<'_>) -> Option<Cow<'r, str>> {
    ["user_key", "userKey"].iter().find_map(|name| id(object.get(name)?))
}

fn id<'r>(raw: &str) -> Option<Cow<'r, str>> {
    let id = field::as_id(JsonValue::Json(Cow::Borrowed(raw))).ok().flatten()?;
    Some(Cow::Owned(id.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_found_in_every_place_that_names_it() {
        // External ids of Segment and RudderStack, the settings of User.com, and the traits.
        for (context, integrations, key) in [
            (r#"{"externalIds":[{"id":"a","type":"x"},{"id":"k","type":"user_key"}]}"#, "", "k"),
            (r#"{"externalId":[{"type":"userKey","id":"k"}]}"#, "", "k"),
            (r#"{"externalId":{"type":"userKey","id":"k"}}"#, "", "k"),
            (r#"{"traits":{"user_key":"t"}}"#, r#"{"User.com":{"user_key":"k"}}"#, "k"),
            ("{}", r#"{"All":false,"user.com":{"user_key":"k"}}"#, "k"),
            (r#"{"traits":{"user_key":"k"}}"#, r#"{"User.com":true}"#, "k"),
            (
                r#"{"externalIds":[{"id":"a","type":"brazeId"}]}"#,
                r#"{"Braze":{"user_key":"x"}}"#,
                "",
            ),
            (r#"{"externalIds":"user_key","traits":{"user_key":null}}"#, "[]", ""),
        ] {
            let integrations = Some(integrations).filter(|raw| !raw.is_empty());
            let found = read(&Object::Raw(context), integrations).unwrap_or_default();
            assert_eq!(found, key, "{context} {integrations:?}");
        }
    }
}
