//! Identify: traits to the fields of a user.
//!
//! Not here: context (`context`) and the types of custom attributes. Invariant: a trait a rule has
//! read is not passed on a second time under its own name.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::leaves::{Leaves, elements, text};
use super::limits::{Customs, OwnNames, PERSON_NAME, SHORT, TEXT, crop_noting, own_names};
use super::spellings::Spellings;
use super::{CallFault, Notes, Settings, context};
use crate::call::{Call, CallKind, Object, trimmed, write_string};
use crate::plan::{Field, FieldClass, FieldSet, OwnId};

/// Spellings of the own id inside traits, used where the call itself names nobody.
const ID_TRAITS: [&str; 4] = ["userId", "user_id", "id", "external_id"];

/// What a trait may be beside an attribute.
#[derive(Debug, Clone, Copy)]
enum Trait {
    /// Names somebody and is never an attribute of a person.
    Identity,
    Email,
    FirstName,
    LastName,
    FullName,
    Phone,
    Gender,
    Status,
    City,
    Region,
    Country,
    Timezone,
    Gravatar,
    Google,
    Linkedin,
    Twitter,
    Facebook,
    CompanyId,
    Score,
    AssignedTo,
    Unsubscribed,
    Notifications,
    UserKey,
    Tags,
}

type Traits<'c> = Leaves<'c, { Trait::Tags as usize + 1 }>;

impl From<Trait> for usize {
    fn from(target: Trait) -> Self {
        target as Self
    }
}

static TRAITS: LazyLock<Spellings> = LazyLock::new(|| {
    Spellings::new(&[
        (Trait::Identity, &["id", "userId", "anonymousId", "groupId", "custom_id"]),
        (Trait::Email, &["email", "Email", "email_address", "emailAddress"]),
        (Trait::FirstName, &["firstName", "firstname", "first_name", "given_name", "givenName"]),
        (
            Trait::LastName,
            &["lastName", "lastname", "last_name", "family_name", "familyName", "surname"],
        ),
        (Trait::FullName, &["name"]),
        (Trait::Phone, &["phone", "phone_number", "phoneNumber", "mobile"]),
        (Trait::Gender, &["gender"]),
        (Trait::Status, &["status"]),
        (Trait::City, &["address.city", "city"]),
        (Trait::Region, &["region", "address.region", "address.state", "state"]),
        (Trait::Country, &["country", "address.country"]),
        (Trait::Timezone, &["timezone"]),
        (
            Trait::Gravatar,
            &[
                "avatar",
                "avatarURL",
                "avatar_URL",
                "avatar_url",
                "avatarUrl",
                "picture",
                "gravatar_url",
            ],
        ),
        (Trait::Google, &["googleUrl", "google_url", "googleURL"]),
        (Trait::Linkedin, &["linkedinUrl", "linkedin_url", "linkedinURL"]),
        (Trait::Twitter, &["twitterUrl", "twitter_url", "twitterURL"]),
        (Trait::Facebook, &["facebookUrl", "facebook_url", "facebookURL"]),
        (Trait::CompanyId, &["company_custom_id", "company.custom_id"]),
        (Trait::Score, &["score"]),
        (Trait::AssignedTo, &["assigned_to"]),
        (Trait::Unsubscribed, &["unsubscribed"]),
        (Trait::Notifications, &["notifications"]),
        (Trait::UserKey, &["user_key"]),
        (Trait::Tags, &["tags"]),
    ])
});

/// The fields that are written, and the id.
static OWN_NAMES: LazyLock<OwnNames> = LazyLock::new(|| {
    own_names(&[
        "custom_id",
        "user_key",
        "email",
        "first_name",
        "last_name",
        "phone_number",
        "gender",
        "status",
        "city",
        "region",
        "country",
        "timezone",
        "gravatar_url",
        "google_url",
        "linkedin_url",
        "twitter_url",
        "facebook_url",
        "company_custom_id",
        "score",
        "assigned_to",
        "unsubscribed",
        "notifications",
        "tags",
    ])
});

/// Text fields that are written as they come, with their longest value.
const LINKS: [(&str, Trait, usize); 6] = [
    ("gravatar_url", Trait::Gravatar, TEXT),
    ("google_url", Trait::Google, TEXT),
    ("linkedin_url", Trait::Linkedin, TEXT),
    ("twitter_url", Trait::Twitter, TEXT),
    ("facebook_url", Trait::Facebook, TEXT),
    ("company_custom_id", Trait::CompanyId, TEXT),
];

/// The customer's own id of the user of a call: `userId`, else `anonymousId`, else (identify and
/// group) what the traits say.
pub(super) fn own_id(call: &Call<'_>) -> Result<OwnId, CallFault> {
    for (id, name) in [(&call.user_id, "userId"), (&call.anonymous_id, "anonymousId")] {
        match id.as_deref().map(trimmed) {
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
pub(super) fn named(object: &Object<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let id = text(object.get(name)?)?;
        let id = id.trim();
        (!id.is_empty()).then(|| id.to_owned())
    })
}

/// An id User.com can hold.
pub(super) fn checked(id: &str, what: &str) -> Result<OwnId, CallFault> {
    if id.len() > TEXT && id.chars().count() > TEXT {
        let reason = format!("`{what}` is longer than {TEXT} characters");
        return Err(CallFault::new("id_too_long", reason));
    }
    Ok(OwnId::from(id))
}

/// The fields an identify writes.
pub(super) fn fields(call: &Call<'_>, settings: &Settings, notes: &mut Notes) -> FieldSet {
    let traits = Traits::of(&call.fields, &TRAITS);
    let around = settings.context_fields.then(|| context::Around::of(&call.context));
    let mut set = FieldSet::with_capacity(40, 1024);
    put_text(&mut set, "email", traits.get(Trait::Email), TEXT, notes);
    put_names(&mut set, &traits, notes);
    put_phone(&mut set, &traits, notes);
    put_code(&mut set, "gender", traits.get(Trait::Gender), gender, notes);
    put_code(&mut set, "status", traits.get(Trait::Status), status, notes);
    put_place(&mut set, &traits, around.as_ref(), notes);
    for (name, link, cap) in LINKS {
        put_text(&mut set, name, traits.get(link), cap, notes);
    }
    put_plain(&mut set, &traits, notes);
    put_tags(&mut set, traits.get(Trait::Tags), notes);
    let mut customs = Customs::new(&mut set, &OWN_NAMES);
    for (name, json) in traits.rest() {
        customs.add(name, json, notes);
    }
    if let Some(around) = around {
        around.tell(|name, value| customs.add_missing(name, value));
    }
    set
}

/// Adds a standard field; its name is new to the set.
pub(super) fn standard(set: &mut FieldSet, name: &str, json: &str) {
    set.push(Field { name, class: FieldClass::Standard, json });
}

/// Adds a text field.
pub(super) fn put_text(
    set: &mut FieldSet,
    name: &str,
    json: Option<&str>,
    cap: usize,
    notes: &mut Notes,
) {
    let Some(json) = json else {
        return;
    };
    match text(json) {
        // A text that is a part of its JSON has no escapes; most stay as they are.
        Some(Cow::Borrowed(value))
            if json.starts_with('"')
                && value.len() <= cap
                && trimmed(value).len() == value.len() =>
        {
            standard(set, name, json);
        }
        Some(value) => put_string(set, name, &value, cap, notes),
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
    let value = crop_noting(trimmed(value), cap, name, notes).trim_end();
    set.push_with(name, FieldClass::Standard, |out| write_string(out, value));
}

/// First and last name; where both are missing, a full `name` is split at its first blank.
fn put_names(set: &mut FieldSet, traits: &Traits<'_>, notes: &mut Notes) {
    let (first, last) = ("first_name", "last_name");
    let before = set.len();
    put_text(set, first, traits.get(Trait::FirstName), PERSON_NAME, notes);
    put_text(set, last, traits.get(Trait::LastName), PERSON_NAME, notes);
    if set.len() > before {
        return;
    }
    let Some(full) = traits.get(Trait::FullName).and_then(text) else {
        return;
    };
    let (name, rest) = match full.trim().split_once(char::is_whitespace) {
        Some((name, rest)) => (name, rest.trim()),
        None => (full.trim(), ""),
    };
    put_string(set, first, name, PERSON_NAME, notes);
    if !rest.is_empty() {
        put_string(set, last, rest, PERSON_NAME, notes);
    }
}

fn put_phone(set: &mut FieldSet, traits: &Traits<'_>, notes: &mut Notes) {
    let Some(json) = traits.get(Trait::Phone) else {
        return;
    };
    match text(json) {
        Some(value) => put_string(set, "phone_number", &dense(&value), SHORT, notes),
        None => notes.dropped("phone_number", "a text is needed, this is a list"),
    }
}

/// A text without its blanks.
pub(super) fn dense(text: &str) -> Cow<'_, str> {
    match text.contains(char::is_whitespace) {
        true => text.chars().filter(|c| !c.is_whitespace()).collect(),
        false => Cow::Borrowed(text),
    }
}

/// Adds a field User.com keeps as a small number.
fn put_code(
    set: &mut FieldSet,
    name: &'static str,
    json: Option<&str>,
    code: fn(&str) -> Option<&'static str>,
    notes: &mut Notes,
) {
    let Some(json) = json else {
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

/// Where the user is: from the traits, else from the context.
fn put_place(
    set: &mut FieldSet,
    traits: &Traits<'_>,
    around: Option<&context::Around<'_>>,
    notes: &mut Notes,
) {
    let (place, zone) = match around {
        Some(around) => ((around.city(), around.country()), around.timezone()),
        None => ((None, None), None),
    };
    for (name, target, cap, elsewhere) in [
        ("city", Trait::City, SHORT, place.0),
        ("region", Trait::Region, SHORT, None),
        ("country", Trait::Country, SHORT, place.1),
        ("timezone", Trait::Timezone, TEXT, zone),
    ] {
        let before = set.len();
        put_text(set, name, traits.get(target), cap, notes);
        if set.len() == before {
            put_text(set, name, elsewhere, cap, notes);
        }
    }
}

/// Standard fields that are taken under their own name only: numbers, switches, the cookie's key.
fn put_plain(set: &mut FieldSet, traits: &Traits<'_>, notes: &mut Notes) {
    for (name, target) in [("score", Trait::Score), ("assigned_to", Trait::AssignedTo)] {
        let Some(json) = traits.get(target) else {
            continue;
        };
        match text(json).and_then(|number| number.trim().parse::<i64>().ok()) {
            Some(number) => standard(set, name, &number.to_string()),
            None => notes.dropped(name, "a whole number is needed"),
        }
    }
    for (name, target) in
        [("unsubscribed", Trait::Unsubscribed), ("notifications", Trait::Notifications)]
    {
        let Some(json) = traits.get(target) else {
            continue;
        };
        match text(json).map(|word| word.trim().to_lowercase()).as_deref() {
            Some("true" | "1" | "yes" | "on") => standard(set, name, "true"),
            Some("false" | "0" | "no" | "off") => standard(set, name, "false"),
            _ => notes.dropped(name, "true or false is needed"),
        }
    }
    put_text(set, "user_key", traits.get(Trait::UserKey), TEXT, notes);
}

/// Tags: a list, or a text with commas.
pub(super) fn put_tags(set: &mut FieldSet, json: Option<&str>, notes: &mut Notes) {
    let Some(json) = json else {
        return;
    };
    let words: Vec<Cow<'_, str>> = match elements(json) {
        Some(list) => list
            .filter_map(|element| {
                let word = text(element);
                if word.is_none() {
                    notes.dropped("tags", "a tag is a text");
                }
                word
            })
            .collect(),
        None => {
            let list = text(json).unwrap_or_default();
            list.split(',').map(|word| Cow::Owned(word.to_owned())).collect()
        }
    };
    let mut tags: Vec<&str> = Vec::with_capacity(words.len());
    for word in &words {
        let tag = crop_noting(word.trim(), TEXT, "tags", notes);
        if !tag.is_empty() && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    put_list(set, "tags", FieldClass::Union, &tags);
}

/// Adds a list of texts, unless it is empty.
pub(super) fn put_list(set: &mut FieldSet, name: &str, class: FieldClass, texts: &[&str]) {
    let [first, more @ ..] = texts else {
        return;
    };
    set.push_with(name, class, |out| {
        out.push('[');
        write_string(out, first);
        for text in more {
            out.push(',');
            write_string(out, text);
        }
        out.push(']');
    });
}
