//! Identify calls: traits become the fields of a user.
//!
//! # Invariants
//!
//! A trait that a mapping rule has read is not passed on again under its own name.

use std::borrow::Cow;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::LazyLock;

use super::aliases::AliasTable;
use super::flattened::{FlattenedTraits, elements, text};
use super::limits::{
    CustomAttributes, MAX_EMAIL_LEN, MAX_PERSON_NAME_LEN, MAX_SHORT_LEN, MAX_TAGS, MAX_TEXT_LEN,
    ReservedNames, reserved_names, truncate_noting, without_nuls,
};
use super::{PlanError, PlanWarnings, Settings, context};
use crate::call::{Call, CallKind, Object, trimmed, write_string};
use crate::schedule::{ExternalUserId, Field, FieldClass, PackedFields};

/// The names of the external id among the traits, used if the call itself names no user.
const ID_TRAITS: [&str; 4] = ["userId", "user_id", "id", "external_id"];

/// What a trait may be other than an attribute.
#[derive(Debug, Clone, Copy)]
enum PersonTrait {
    /// Identifies a user and is never an attribute of a person.
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

type PersonTraits<'c> = FlattenedTraits<'c, { PersonTrait::Tags as usize + 1 }>;

impl From<PersonTrait> for usize {
    fn from(target: PersonTrait) -> Self {
        target as Self
    }
}

static TRAITS: LazyLock<AliasTable> = LazyLock::new(|| {
    AliasTable::new(&[
        (PersonTrait::Identity, &["id", "userId", "anonymousId", "groupId", "custom_id"]),
        (PersonTrait::Email, &["email", "Email", "email_address", "emailAddress"]),
        (
            PersonTrait::FirstName,
            &["firstName", "firstname", "first_name", "given_name", "givenName"],
        ),
        (
            PersonTrait::LastName,
            &["lastName", "lastname", "last_name", "family_name", "familyName", "surname"],
        ),
        (PersonTrait::FullName, &["name"]),
        (PersonTrait::Phone, &["phone", "phone_number", "phoneNumber", "mobile"]),
        (PersonTrait::Gender, &["gender"]),
        (PersonTrait::Status, &["status"]),
        (PersonTrait::City, &["address.city", "city"]),
        (PersonTrait::Region, &["region", "address.region", "address.state", "state"]),
        (PersonTrait::Country, &["country", "address.country"]),
        (PersonTrait::Timezone, &["timezone"]),
        (
            PersonTrait::Gravatar,
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
        (PersonTrait::Google, &["googleUrl", "google_url", "googleURL"]),
        (PersonTrait::Linkedin, &["linkedinUrl", "linkedin_url", "linkedinURL"]),
        (PersonTrait::Twitter, &["twitterUrl", "twitter_url", "twitterURL"]),
        (PersonTrait::Facebook, &["facebookUrl", "facebook_url", "facebookURL"]),
        (PersonTrait::CompanyId, &["company_custom_id", "company.custom_id"]),
        (PersonTrait::Score, &["score"]),
        (PersonTrait::AssignedTo, &["assigned_to"]),
        (PersonTrait::Unsubscribed, &["unsubscribed"]),
        (PersonTrait::Notifications, &["notifications"]),
        (PersonTrait::UserKey, &["user_key"]),
        (PersonTrait::Tags, &["tags"]),
    ])
});

/// User.com's own fields, in both versions of its API: those that are written, the ids, and the
/// read-only ones. Browser and device are not among them, because they are sent as attributes of
/// those names.
static RESERVED_NAMES: LazyLock<ReservedNames> = LazyLock::new(|| {
    reserved_names(&[
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
        "id",
        "user_id",
        "user_custom_id",
        "key",
        "client",
        "client_id",
        "client_user",
        "company_id",
        "companies",
        "name",
        "attributes",
        "lists",
        "chat_id",
        "page_views",
        "first_seen",
        "last_seen",
        "last_contacted",
        "created_at",
        "updated_at",
        "most_active_time",
        "web_push_subscription",
        "browser",
        "browser_language",
        "os_type",
        "last_ip",
    ])
});

/// Addresses and ids: sent as they came, or not at all. A truncated one would lead to another page.
const LINKS: [(&str, PersonTrait); 6] = [
    ("gravatar_url", PersonTrait::Gravatar),
    ("google_url", PersonTrait::Google),
    ("linkedin_url", PersonTrait::Linkedin),
    ("twitter_url", PersonTrait::Twitter),
    ("facebook_url", PersonTrait::Facebook),
    ("company_custom_id", PersonTrait::CompanyId),
];

/// The external id of the user of a call: `userId`, else `anonymousId`, else (identify and group)
/// an id among the traits.
pub(super) fn own_id(call: &Call<'_>, settings: &Settings) -> Result<ExternalUserId, PlanError> {
    for (id, name) in [(&call.user_id, "userId"), (&call.anonymous_id, "anonymousId")] {
        match id.as_deref().map(trimmed) {
            Some(id) if !id.is_empty() => return checked(id, name, settings),
            _ => {}
        }
    }
    let spellings: &[&str] = match call.kind {
        CallKind::Identify => &ID_TRAITS,
        CallKind::Group => &ID_TRAITS[..2],
        CallKind::Track | CallKind::Page | CallKind::Alias => &[],
    };
    match named(&call.fields, spellings) {
        Some(id) => checked(&id, "the traits' id", settings),
        None => Err(PlanError::new(
            "no_identity",
            format!("the {} call has neither `userId` nor `anonymousId`", call.kind),
        )),
    }
}

/// The first of some top-level keys that holds a string.
pub(super) fn named(object: &Object<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let id = text(object.get(name)?)?;
        let id = id.trim();
        (!id.is_empty()).then(|| id.to_owned())
    })
}

/// An id that User.com can store.
pub(super) fn checked(
    id: &str,
    what: &str,
    settings: &Settings,
) -> Result<ExternalUserId, PlanError> {
    if id.contains('\0') {
        let reason = format!("`{what}` has a NUL character in it, which no id can have");
        return Err(PlanError::new("id_not_text", reason));
    }
    let max = settings.max_id_length();
    if id.len() > max && id.chars().count() > max {
        let reason = format!("`{what}` is longer than {max} characters");
        return Err(PlanError::new("id_too_long", reason));
    }
    Ok(ExternalUserId::from(&*settings.own_id(id)))
}

/// The fields that an identify call writes.
pub(super) fn fields(
    call: &Call<'_>,
    settings: &Settings,
    notes: &mut PlanWarnings,
) -> PackedFields {
    let traits = PersonTraits::of(&call.fields, &TRAITS);
    let around = settings.context_fields.then(|| context::ContextFields::of(&call.context));
    let mut set = PackedFields::with_capacity(40, 1024);
    put_email(&mut set, traits.get(PersonTrait::Email), notes);
    put_names(&mut set, &traits, notes);
    put_phone(&mut set, &traits, notes);
    put_code(&mut set, "gender", traits.get(PersonTrait::Gender), gender, notes);
    put_code(&mut set, "status", traits.get(PersonTrait::Status), status, notes);
    put_place(&mut set, &traits, around.as_ref(), notes);
    for (name, link) in LINKS {
        put_whole(&mut set, name, traits.get(link), MAX_TEXT_LEN, notes);
    }
    put_plain(&mut set, &traits, notes);
    put_tags(&mut set, traits.get(PersonTrait::Tags), notes);
    let mut customs = CustomAttributes::new(&mut set, &RESERVED_NAMES);
    for other in traits.rest() {
        customs.add(other, notes);
    }
    if let Some(around) = around {
        around.for_each_field(|name, value| {
            if name == "current_url" && value.chars().count() > MAX_TEXT_LEN {
                notes.dropped(name, TOO_LONG);
            } else {
                customs.add_missing(name, value);
            }
        });
    }
    set
}

/// Why a value that cannot be truncated is dropped.
pub(super) const TOO_LONG: &str =
    "longer than User.com accepts, and truncated it would mean something else";

/// Adds an e-mail address, unless it is obviously none or too long.
pub(super) fn put_email(set: &mut PackedFields, json: Option<&str>, notes: &mut PlanWarnings) {
    let Some(json) = json else {
        return;
    };
    let address = text(json).map(|address| without_nuls(address.trim()).into_owned());
    let is_one = |address: &str| {
        let parts = address.rsplit_once('@');
        let blank = |c: char| c.is_whitespace() || c.is_control();
        parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
            && !address.contains(blank)
    };
    match address {
        // The empty string clears the field.
        Some(address) if address.is_empty() || is_one(&address) => {
            put_whole(set, "email", Some(json), MAX_EMAIL_LEN, notes);
        }
        _ => notes.dropped("email", "not an e-mail address"),
    }
}

/// Adds a text field whose value is sent complete or not at all.
pub(super) fn put_whole(
    set: &mut PackedFields,
    name: &str,
    json: Option<&str>,
    cap: usize,
    notes: &mut PlanWarnings,
) {
    let Some(json) = json else {
        return;
    };
    match text(json) {
        Some(value) if trimmed(&value).chars().count() > cap => notes.dropped(name, TOO_LONG),
        _ => put_text(set, name, Some(json), cap, notes),
    }
}

/// Adds a standard field; its name is new to the set.
pub(super) fn standard(set: &mut PackedFields, name: &str, json: &str) {
    set.push(Field { name, class: FieldClass::Standard, json });
}

/// Adds a text field.
pub(super) fn put_text(
    set: &mut PackedFields,
    name: &str,
    json: Option<&str>,
    cap: usize,
    notes: &mut PlanWarnings,
) {
    let Some(json) = json else {
        return;
    };
    match text(json) {
        // A string that is a slice of its JSON has no escapes; most are written as they came.
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
    set: &mut PackedFields,
    name: &str,
    value: &str,
    cap: usize,
    notes: &mut PlanWarnings,
) {
    let value = without_nuls(value);
    let value = truncate_noting(trimmed(&value), cap, name, notes).trim_end();
    set.push_with(name, FieldClass::Standard, |out| write_string(out, value));
}

/// First and last name; where both are missing, a full `name` is split at its first blank.
fn put_names(set: &mut PackedFields, traits: &PersonTraits<'_>, notes: &mut PlanWarnings) {
    let (first, last) = ("first_name", "last_name");
    let before = set.len();
    put_text(set, first, traits.get(PersonTrait::FirstName), MAX_PERSON_NAME_LEN, notes);
    put_text(set, last, traits.get(PersonTrait::LastName), MAX_PERSON_NAME_LEN, notes);
    if set.len() > before {
        return;
    }
    let Some(full) = traits.get(PersonTrait::FullName).and_then(text) else {
        return;
    };
    let (name, rest) = match full.trim().split_once(char::is_whitespace) {
        Some((name, rest)) => (name, rest.trim()),
        None => (full.trim(), ""),
    };
    put_string(set, first, name, MAX_PERSON_NAME_LEN, notes);
    if !rest.is_empty() {
        put_string(set, last, rest, MAX_PERSON_NAME_LEN, notes);
    }
}

fn put_phone(set: &mut PackedFields, traits: &PersonTraits<'_>, notes: &mut PlanWarnings) {
    let Some(json) = traits.get(PersonTrait::Phone) else {
        return;
    };
    match text(json) {
        Some(value) => {
            let value = dense(&value);
            match value.chars().count() > MAX_SHORT_LEN {
                true => notes.dropped("phone_number", TOO_LONG),
                false => put_string(set, "phone_number", &value, MAX_SHORT_LEN, notes),
            }
        }
        None => notes.dropped("phone_number", "a text is needed, this is a list"),
    }
}

/// A string without its blanks.
pub(super) fn dense(text: &str) -> Cow<'_, str> {
    match text.contains(char::is_whitespace) {
        true => text.chars().filter(|c| !c.is_whitespace()).collect(),
        false => Cow::Borrowed(text),
    }
}

/// Adds a field that User.com stores as a small number.
fn put_code(
    set: &mut PackedFields,
    name: &'static str,
    json: Option<&str>,
    code: fn(&str) -> Option<&'static str>,
    notes: &mut PlanWarnings,
) {
    let Some(json) = json else {
        return;
    };
    match text(json).and_then(|word| code(&plain_word(&word))) {
        Some(code) => standard(set, name, code),
        None => notes.dropped(name, "not a value User.com knows"),
    }
}

/// A word in lower case without the diacritics that people leave out when they type.
fn plain_word(word: &str) -> String {
    let lower = word.trim().trim_end_matches('.').to_lowercase();
    let plain = lower.chars().filter_map(|c| match c {
        // Combining marks, which follow their letter.
        '\u{300}'..='\u{36f}' => None,
        'ą' | 'á' | 'à' | 'â' | 'ã' | 'ä' | 'å' => Some('a'),
        'ę' | 'é' | 'è' | 'ê' | 'ë' | 'ě' => Some('e'),
        'í' | 'ì' | 'î' | 'ï' => Some('i'),
        'ó' | 'ò' | 'ô' | 'õ' | 'ö' => Some('o'),
        'ú' | 'ù' | 'û' | 'ü' | 'ů' => Some('u'),
        'ł' => Some('l'),
        'ż' | 'ź' | 'ž' => Some('z'),
        'ś' | 'š' => Some('s'),
        'ć' | 'č' | 'ç' => Some('c'),
        'ń' | 'ñ' => Some('n'),
        other => Some(other),
    });
    plain.collect()
}

/// The genders, in lower case and without diacritics, in Polish, English and other languages of
/// Europe.
fn gender(word: &str) -> Option<&'static str> {
    match word {
        "1" | "u" | "unknown" | "nieznana" | "nieznany" | "unbekannt" => Some("1"),
        "2" | "m" | "male" | "man" | "mr" | "mezczyzna" | "meska" | "meski" | "pan" | "chlopak"
        | "mann" | "mannlich" | "maennlich" | "herr" | "homme" | "masculin" | "monsieur"
        | "hombre" | "masculino" | "senor" | "uomo" | "maschio" | "maschile" | "signore"
        | "homem" | "mannelijk" | "muz" | "mand" | "чоловік" | "чоловіча" | "мужчина"
        | "мужской" | "м" => Some("2"),
        "3" | "f" | "female" | "w" | "woman" | "k" | "mrs" | "ms" | "miss" | "kobieta"
        | "zenska" | "zenski" | "pani" | "dziewczyna" | "frau" | "weiblich" | "femme"
        | "feminin" | "madame" | "mujer" | "femenino" | "feminino" | "senora" | "donna"
        | "femmina" | "femminile" | "signora" | "mulher" | "vrouw" | "vrouwelijk" | "zena"
        | "kvinde" | "kvinna" | "kvinne" | "жінка" | "жіноча" | "женщина" | "женский" | "ж" => {
            Some("3")
        }
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

/// The location of the user: from the traits, otherwise from the context.
fn put_place(
    set: &mut PackedFields,
    traits: &PersonTraits<'_>,
    around: Option<&context::ContextFields<'_>>,
    notes: &mut PlanWarnings,
) {
    let (place, zone) = match around {
        Some(around) => ((around.city(), around.country()), around.timezone()),
        None => ((None, None), None),
    };
    for (name, target, cap, elsewhere) in [
        ("city", PersonTrait::City, MAX_SHORT_LEN, place.0),
        ("region", PersonTrait::Region, MAX_SHORT_LEN, None),
        ("country", PersonTrait::Country, MAX_SHORT_LEN, place.1),
        ("timezone", PersonTrait::Timezone, MAX_TEXT_LEN, zone),
    ] {
        let before = set.len();
        put_text(set, name, traits.get(target), cap, notes);
        if set.len() == before {
            put_text(set, name, elsewhere, cap, notes);
        }
    }
}

/// Standard fields that are accepted under their own name only: numbers, switches, the key of the
/// cookie.
fn put_plain(set: &mut PackedFields, traits: &PersonTraits<'_>, notes: &mut PlanWarnings) {
    for (name, target) in [("score", PersonTrait::Score), ("assigned_to", PersonTrait::AssignedTo)]
    {
        let Some(json) = traits.get(target) else {
            continue;
        };
        match text(json).and_then(|number| number.trim().parse::<i64>().ok()) {
            Some(number) => standard(set, name, &number.to_string()),
            None => notes.dropped(name, "a whole number is needed"),
        }
    }
    for (name, target) in
        [("unsubscribed", PersonTrait::Unsubscribed), ("notifications", PersonTrait::Notifications)]
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
    put_whole(set, "user_key", traits.get(PersonTrait::UserKey), MAX_TEXT_LEN, notes);
}

/// Tags: a list, or a text with commas.
pub(super) fn put_tags(set: &mut PackedFields, json: Option<&str>, notes: &mut PlanWarnings) {
    let Some(json) = json else {
        return;
    };
    let mut tags = Tags::default();
    match elements(json) {
        Some(list) => list.for_each(|element| match text(element) {
            Some(word) => tags.add(&word, notes),
            None => notes.dropped("tags", "a tag is a text"),
        }),
        None => {
            let list = text(json).unwrap_or_default();
            list.split(',').for_each(|word| tags.add(word, notes));
        }
    }
    let tags: Vec<&str> = tags.list.iter().map(|tag| &**tag).collect();
    put_list(set, "tags", FieldClass::SetUnion, &tags);
}

/// Tags in order, each once.
#[derive(Default)]
struct Tags {
    list: Vec<Rc<str>>,
    seen: HashSet<Rc<str>>,
}

impl Tags {
    fn add(&mut self, word: &str, notes: &mut PlanWarnings) {
        let word = without_nuls(word);
        let tag = truncate_noting(word.trim(), MAX_TEXT_LEN, "tags", notes).trim_end();
        if tag.is_empty() || self.seen.contains(tag) {
            return;
        }
        if self.list.len() == MAX_TAGS {
            notes.dropped("tags", "a record sets at most 1000 tags");
            return;
        }
        let tag: Rc<str> = tag.into();
        self.list.push(Rc::clone(&tag));
        self.seen.insert(tag);
    }
}

/// Adds a list of strings, unless it is empty.
pub(super) fn put_list(set: &mut PackedFields, name: &str, class: FieldClass, texts: &[&str]) {
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
