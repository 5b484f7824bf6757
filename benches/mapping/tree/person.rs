//! Identify: traits to the body of a user.

use std::sync::LazyLock;

use serde_json::{Map, Value};
use usercom_sink::call::CallKind;

use super::agents::Agents;
use super::body::Body;
use super::context::Around;
use super::leaves::Leaves;
use super::spellings::Spellings;
use super::table::Call;
use super::text::{SHORT, TEXT, cropped, dense, text, trimmed, word};
use super::{Fault, Notes};

/// Characters of a first or last name.
const PERSON_NAME: usize = 40;

/// Spellings of the own id inside traits, used where the call itself names nobody.
const ID_TRAITS: [&str; 4] = ["userId", "user_id", "id", "external_id"];

/// What a trait may be beside an attribute.
#[derive(Clone, Copy)]
enum Trait {
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

type Traits = Leaves<{ Trait::Tags as usize + 1 }>;

impl From<Trait> for usize {
    fn from(target: Trait) -> Self {
        target as Self
    }
}

/// The fields that are written, and the id.
const OWN_NAMES: [&str; 23] = [
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
];

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

/// Text fields that are written as they come.
const LINKS: [(&str, Trait); 6] = [
    ("gravatar_url", Trait::Gravatar),
    ("google_url", Trait::Google),
    ("linkedin_url", Trait::Linkedin),
    ("twitter_url", Trait::Twitter),
    ("facebook_url", Trait::Facebook),
    ("company_custom_id", Trait::CompanyId),
];

/// The customer's own id of the user of a call.
pub(super) fn own_id(call: &Call) -> Result<String, Fault> {
    let given = [&call.user_id, &call.anonymous_id].into_iter().flatten();
    let id = given.map(|id| id.trim()).find(|id| !id.is_empty()).map(str::to_owned);
    let spellings: &[&str] = match call.kind {
        CallKind::Identify => &ID_TRAITS,
        CallKind::Group => &ID_TRAITS[..2],
        CallKind::Track | CallKind::Page | CallKind::Alias => &[],
    };
    let id = id.or_else(|| named(&call.fields, spellings)).ok_or("nobody is named")?;
    checked(id)
}

/// The first of some top-level keys that holds a text.
pub(super) fn named(object: &Map<String, Value>, names: &[&str]) -> Option<String> {
    let word = |name: &&str| match object.get(*name)? {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        scalar => Some(scalar.to_string()),
    };
    names.iter().filter_map(word).find(|text| !text.is_empty())
}

/// An id User.com can hold.
pub(super) fn checked(id: String) -> Result<String, Fault> {
    match id.len() > TEXT && id.chars().count() > TEXT {
        true => Err("an id is too long"),
        false => Ok(id),
    }
}

/// The body of an identify.
pub(super) fn body(
    user: String,
    call: Call,
    agents: &Agents,
    notes: &mut Notes,
) -> Map<String, Value> {
    let mut traits = Traits::of(call.fields, &TRAITS);
    let mut around = Around::of(call.context);
    let mut body = Body::of(user, &OWN_NAMES);
    body.put_text("email", traits.take(Trait::Email), TEXT, notes);
    put_names(&mut body, &mut traits, notes);
    put_phone(&mut body, traits.take(Trait::Phone), notes);
    put_code(&mut body, "gender", traits.take(Trait::Gender), gender, notes);
    put_code(&mut body, "status", traits.take(Trait::Status), status, notes);
    put_place(&mut body, &mut traits, &mut around, notes);
    for (name, link) in LINKS {
        body.put_text(name, traits.take(link), TEXT, notes);
    }
    put_plain(&mut body, &mut traits, notes);
    put_tags(&mut body, traits.take(Trait::Tags), notes);
    for (name, value) in traits.rest {
        body.custom(name, value, notes);
    }
    around.tell(&mut body, agents);
    body.done()
}

/// First and last name; where both are missing, a full `name` is split at its first blank.
fn put_names(body: &mut Body, traits: &mut Traits, notes: &mut Notes) {
    let (first, last) = ("first_name", "last_name");
    body.put_text(first, traits.take(Trait::FirstName), PERSON_NAME, notes);
    body.put_text(last, traits.take(Trait::LastName), PERSON_NAME, notes);
    if body.has(first) || body.has(last) {
        return;
    }
    let Some(full) = traits.take(Trait::FullName).and_then(word) else {
        return;
    };
    match full.split_once(char::is_whitespace) {
        Some((name, rest)) => {
            body.put_string(first, name.to_owned(), PERSON_NAME, notes);
            body.put_string(last, rest.to_owned(), PERSON_NAME, notes);
        }
        None => body.put_string(first, full, PERSON_NAME, notes),
    }
}

fn put_phone(body: &mut Body, value: Option<Value>, notes: &mut Notes) {
    match value.map(text) {
        Some(Some(phone)) => body.put_string("phone_number", dense(phone), SHORT, notes),
        Some(None) => notes.dropped("phone_number", "a text is needed, this is a list"),
        None => {}
    }
}

/// Adds a field User.com keeps as a small number.
fn put_code(
    body: &mut Body,
    name: &'static str,
    value: Option<Value>,
    code: fn(&str) -> Option<u8>,
    notes: &mut Notes,
) {
    let Some(value) = value else {
        return;
    };
    match word(value).and_then(|word| code(&word.to_lowercase())) {
        Some(code) => body.put(name, code),
        None => notes.dropped(name, "not a value User.com knows"),
    }
}

fn gender(word: &str) -> Option<u8> {
    match word {
        "1" | "u" | "unknown" => Some(1),
        "2" | "m" | "male" | "man" => Some(2),
        "3" | "f" | "female" | "w" | "woman" | "k" => Some(3),
        _ => None,
    }
}

fn status(word: &str) -> Option<u8> {
    match word {
        "1" | "v" | "visitor" => Some(1),
        "2" | "u" | "user" => Some(2),
        _ => None,
    }
}

/// Where the user is: from the traits, else from the context.
fn put_place(body: &mut Body, traits: &mut Traits, around: &mut Around, notes: &mut Notes) {
    for (name, target, cap, elsewhere) in [
        ("city", Trait::City, SHORT, around.city()),
        ("region", Trait::Region, SHORT, None),
        ("country", Trait::Country, SHORT, around.country()),
        ("timezone", Trait::Timezone, TEXT, around.timezone()),
    ] {
        body.put_text(name, traits.take(target), cap, notes);
        if !body.has(name) {
            body.put_text(name, elsewhere, cap, notes);
        }
    }
}

/// Standard fields that are taken under their own name only: numbers, switches, the cookie's key.
fn put_plain(body: &mut Body, traits: &mut Traits, notes: &mut Notes) {
    for (name, target) in [("score", Trait::Score), ("assigned_to", Trait::AssignedTo)] {
        let Some(value) = traits.take(target) else {
            continue;
        };
        match word(value).and_then(|number| number.parse::<i64>().ok()) {
            Some(number) => body.put(name, number),
            None => notes.dropped(name, "a whole number is needed"),
        }
    }
    for (name, target) in
        [("unsubscribed", Trait::Unsubscribed), ("notifications", Trait::Notifications)]
    {
        let Some(value) = traits.take(target) else {
            continue;
        };
        match word(value).map(|word| word.to_lowercase()).as_deref() {
            Some("true" | "1" | "yes" | "on") => body.put(name, true),
            Some("false" | "0" | "no" | "off") => body.put(name, false),
            _ => notes.dropped(name, "true or false is needed"),
        }
    }
    body.put_text("user_key", traits.take(Trait::UserKey), TEXT, notes);
}

/// Tags: a list, or a text with commas.
pub(super) fn put_tags(body: &mut Body, value: Option<Value>, notes: &mut Notes) {
    let words: Vec<String> = match value {
        Some(Value::Array(list)) => {
            let given = list.len();
            let words: Vec<String> = list.into_iter().filter_map(text).collect();
            (words.len()..given).for_each(|_| notes.dropped("tags", "a tag is a text"));
            words
        }
        Some(value) => text(value).unwrap_or_default().split(',').map(str::to_owned).collect(),
        None => return,
    };
    let mut tags: Vec<String> = Vec::with_capacity(words.len());
    for word in words {
        let tag = cropped(trimmed(word), TEXT, "tags", notes);
        if !tag.is_empty() && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    body.put_list("tags", tags);
}
