//! Identify: traits to the fields of a user.
//!
//! Not here: context (`context`) and the types of custom attributes. Invariant: a trait a rule has
//! read is not passed on a second time under its own name.

use super::leaves::{Leaves, elements, text};
use super::limits::{Customs, PERSON_NAME, SHORT, TEXT, crop_noting};
use super::{CallFault, Notes, Settings, context};
use crate::call::{Call, CallKind, Fields, Json};
use crate::plan::{Field, FieldClass, FieldSet, OwnId};

/// Spellings of the own id inside traits, used where the call itself names nobody.
const ID_TRAITS: [&str; 4] = ["userId", "user_id", "id", "external_id"];
/// Keys that name somebody and are never attributes of a person.
const IDENTITY: [&str; 5] = ["id", "userId", "anonymousId", "groupId", "custom_id"];

/// One standard text field: its name, its spellings, its longest value.
type TextRule = (&'static str, &'static [&'static str], usize);

const EMAIL: TextRule = ("email", &["email", "Email", "email_address", "emailAddress"], TEXT);
const FIRST_NAME: TextRule = (
    "first_name",
    &["firstName", "firstname", "first_name", "given_name", "givenName"],
    PERSON_NAME,
);
const LAST_NAME: TextRule = (
    "last_name",
    &["lastName", "lastname", "last_name", "family_name", "familyName", "surname"],
    PERSON_NAME,
);
const PHONE: &[&str] = &["phone", "phone_number", "phoneNumber", "mobile"];
const CITY: TextRule = ("city", &["address.city", "city"], SHORT);
const REGION: TextRule = ("region", &["region", "address.region", "address.state", "state"], SHORT);
const COUNTRY: TextRule = ("country", &["country", "address.country"], SHORT);
const TIMEZONE: TextRule = ("timezone", &["timezone"], TEXT);
const LINKS: [TextRule; 6] = [
    (
        "gravatar_url",
        &[
            "avatar",
            "avatarURL",
            "avatar_URL",
            "avatar_url",
            "avatarUrl",
            "picture",
            "gravatar_url",
        ],
        TEXT,
    ),
    ("google_url", &["googleUrl", "google_url", "googleURL"], TEXT),
    ("linkedin_url", &["linkedinUrl", "linkedin_url", "linkedinURL"], TEXT),
    ("twitter_url", &["twitterUrl", "twitter_url", "twitterURL"], TEXT),
    ("facebook_url", &["facebookUrl", "facebook_url", "facebookURL"], TEXT),
    ("company_custom_id", &["company_custom_id", "company.custom_id"], TEXT),
];

/// The customer's own id of the user of a call: `userId`, else `anonymousId`, else (identify and
/// group) what the traits say.
pub(super) fn own_id(call: &Call<'_>) -> Result<OwnId, CallFault> {
    for (id, name) in [(&call.user_id, "userId"), (&call.anonymous_id, "anonymousId")] {
        match id.as_deref().map(str::trim) {
            Some(id) if !id.is_empty() => return checked(id, name),
            _ => {}
        }
    }
    let spellings: &[&str] = match call.kind {
        CallKind::Identify => &ID_TRAITS,
        CallKind::Group => &ID_TRAITS[..2],
        CallKind::Track | CallKind::Page | CallKind::Alias => &[],
    };
    match named(&call.fields, spellings) {
        Some(id) => checked(&id, "the traits' id"),
        None => Err(CallFault::new(
            "no_identity",
            format!("the {} call has neither `userId` nor `anonymousId`", call.kind),
        )),
    }
}

/// The first of some top-level keys that holds a text.
pub(super) fn named(fields: &Fields<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let (_, json) = fields.iter().find(|(key, _)| key == name)?;
        let id = text(json.as_str())?;
        let id = id.trim();
        (!id.is_empty()).then(|| id.to_owned())
    })
}

/// An id User.com can hold.
pub(super) fn checked(id: &str, what: &str) -> Result<OwnId, CallFault> {
    if id.chars().count() > TEXT {
        let reason = format!("`{what}` is longer than {TEXT} characters");
        return Err(CallFault::new("id_too_long", reason));
    }
    Ok(OwnId::from(id))
}

/// The fields an identify writes.
pub(super) fn fields(call: &Call<'_>, settings: &Settings, notes: &mut Notes) -> FieldSet {
    let mut traits = Leaves::of(&call.fields);
    let roots = if settings.context_fields { context::ROOTS } else { &[] };
    let mut around = Leaves::below(&call.context, roots);
    let mut set = FieldSet::default();
    traits.discard(&IDENTITY);
    put_text(&mut set, &mut traits, &EMAIL, notes);
    put_names(&mut set, &mut traits, notes);
    put_phone(&mut set, &mut traits, notes);
    put_code(&mut set, &mut traits, "gender", gender, notes);
    put_code(&mut set, &mut traits, "status", status, notes);
    put_place(&mut set, &mut traits, &mut around, settings, notes);
    for rule in &LINKS {
        put_text(&mut set, &mut traits, rule, notes);
    }
    put_plain(&mut set, &mut traits, notes);
    put_tags(&mut set, &mut traits, notes);
    let mut customs = Customs::new(&mut set, call.fields.len() + roots.len());
    for leaf in traits.rest() {
        customs.add(&leaf.flat, leaf.json, notes);
    }
    if settings.context_fields {
        for (name, value) in context::fields(&mut around) {
            customs.add_missing(name, &value, notes);
        }
    }
    set
}

pub(super) fn standard(set: &mut FieldSet, name: &str, json: impl Into<Box<str>>) {
    set.set(Field { name: name.into(), class: FieldClass::Standard, json: json.into() });
}

/// Writes a text field from the first of its spellings.
pub(super) fn put_text(
    set: &mut FieldSet,
    leaves: &mut Leaves<'_>,
    (name, spellings, cap): &TextRule,
    notes: &mut Notes,
) {
    let Some(json) = leaves.take(spellings) else {
        return;
    };
    match text(json) {
        Some(value) => put_string(set, name, &value, *cap, notes),
        None => notes.dropped(name, "a text is needed, this is a list"),
    }
}

pub(super) fn put_string(
    set: &mut FieldSet,
    name: &str,
    value: &str,
    cap: usize,
    notes: &mut Notes,
) {
    let value = crop_noting(value.trim(), cap, name, notes).trim_end();
    standard(set, name, Json::string(value).into_text());
}

/// First and last name; where both are missing, a full `name` is split at its first blank.
fn put_names(set: &mut FieldSet, traits: &mut Leaves<'_>, notes: &mut Notes) {
    put_text(set, traits, &FIRST_NAME, notes);
    put_text(set, traits, &LAST_NAME, notes);
    let full = traits.take(&["name"]).and_then(text);
    if !set.is_empty() && (set.get("first_name").is_some() || set.get("last_name").is_some()) {
        return;
    }
    let Some(full) = full else {
        return;
    };
    let (first, rest) = match full.trim().split_once(char::is_whitespace) {
        Some((first, rest)) => (first, rest.trim()),
        None => (full.trim(), ""),
    };
    put_string(set, FIRST_NAME.0, first, PERSON_NAME, notes);
    if !rest.is_empty() {
        put_string(set, LAST_NAME.0, rest, PERSON_NAME, notes);
    }
}

fn put_phone(set: &mut FieldSet, traits: &mut Leaves<'_>, notes: &mut Notes) {
    let Some(json) = traits.take(PHONE) else {
        return;
    };
    match text(json) {
        Some(value) => {
            let dense: String = value.chars().filter(|c| !c.is_whitespace()).collect();
            put_string(set, "phone_number", &dense, SHORT, notes);
        }
        None => notes.dropped("phone_number", "a text is needed, this is a list"),
    }
}

/// A field User.com keeps as a small number.
fn put_code(
    set: &mut FieldSet,
    traits: &mut Leaves<'_>,
    name: &'static str,
    code: fn(&str) -> Option<&'static str>,
    notes: &mut Notes,
) {
    let Some(json) = traits.take(&[name]) else {
        return;
    };
    match text(json).and_then(|word| code(&word.trim().to_lowercase())) {
        Some(code) => standard(set, name, code),
        None => notes.dropped(name, "not a value User.com knows"),
    }
}

fn gender(word: &str) -> Option<&'static str> {
    match word {
        "1" | "u" | "unknown" => Some("1"),
        "2" | "m" | "male" | "man" => Some("2"),
        "3" | "f" | "female" | "w" | "woman" | "k" => Some("3"),
        _ => None,
    }
}

fn status(word: &str) -> Option<&'static str> {
    match word {
        "1" | "v" | "visitor" => Some("1"),
        "2" | "u" | "user" => Some("2"),
        _ => None,
    }
}

/// Where the user is: from the traits, else from the context if that is wanted.
fn put_place(
    set: &mut FieldSet,
    traits: &mut Leaves<'_>,
    around: &mut Leaves<'_>,
    settings: &Settings,
    notes: &mut Notes,
) {
    const AROUND: [TextRule; 3] = [
        ("city", &["location.city"], SHORT),
        ("country", &["location.country"], SHORT),
        ("timezone", &["timezone"], TEXT),
    ];
    for rule in [&CITY, &REGION, &COUNTRY, &TIMEZONE] {
        put_text(set, traits, rule, notes);
    }
    for rule in AROUND.iter().filter(|_| settings.context_fields) {
        if set.get(rule.0).is_none() {
            put_text(set, around, rule, notes);
        }
    }
}

/// Standard fields that are taken under their own name only: numbers, switches, the cookie's key.
fn put_plain(set: &mut FieldSet, traits: &mut Leaves<'_>, notes: &mut Notes) {
    for name in ["score", "assigned_to"] {
        let Some(json) = traits.take(&[name]) else {
            continue;
        };
        match text(json).and_then(|number| number.trim().parse::<i64>().ok()) {
            Some(number) => standard(set, name, number.to_string()),
            None => notes.dropped(name, "a whole number is needed"),
        }
    }
    for name in ["unsubscribed", "notifications"] {
        let Some(json) = traits.take(&[name]) else {
            continue;
        };
        match text(json).map(|word| word.trim().to_lowercase()).as_deref() {
            Some("true" | "1" | "yes" | "on") => standard(set, name, "true"),
            Some("false" | "0" | "no" | "off") => standard(set, name, "false"),
            _ => notes.dropped(name, "true or false is needed"),
        }
    }
    put_text(set, traits, &("user_key", &["user_key"], TEXT), notes);
}

/// Tags: a list, or a text with commas.
pub(super) fn put_tags(set: &mut FieldSet, leaves: &mut Leaves<'_>, notes: &mut Notes) {
    let Some(json) = leaves.take(&["tags"]) else {
        return;
    };
    let words: Vec<String> = match elements(json) {
        Some(list) => list
            .iter()
            .filter_map(|element| match text(element.get()) {
                Some(word) => Some(word.into_owned()),
                None => {
                    notes.dropped("tags", "a tag is a text");
                    None
                }
            })
            .collect(),
        None => {
            text(json).map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default()
        }
    };
    let mut tags: Vec<String> = Vec::with_capacity(words.len());
    for word in words {
        let tag = crop_noting(word.trim(), TEXT, "tags", notes);
        if !tag.is_empty() && !tags.iter().any(|known| known == tag) {
            tags.push(tag.to_owned());
        }
    }
    if !tags.is_empty() {
        set.set(Field {
            name: "tags".into(),
            class: FieldClass::Union,
            json: serde_json::Value::from(tags).to_string().into(),
        });
    }
}
