//! Group: traits to the fields of a company.
//!
//! A name is written only where the call has one: a company that is there already is not renamed
//! to its id. A new company gets its id for a name when it is created.

use super::leaves::{Leaves, elements, text};
use super::limits::{Customs, SHORT, TEXT, crop_noting};
use super::person::{named, put_string, put_tags, put_text, standard};
use super::{CallFault, Notes};
use crate::call::Call;
use crate::plan::{FieldSet, GroupId};

/// The zip code's seven spellings, at the top and in the address.
const POSTAL_CODE: &[&str] = &[
    "zip",
    "zipcode",
    "zip_code",
    "zipCode",
    "postalcode",
    "postal_code",
    "postalCode",
    "address.zip",
    "address.zipcode",
    "address.zip_code",
    "address.zipCode",
    "address.postalcode",
    "address.postal_code",
    "address.postalCode",
];
const IDENTITY: [&str; 5] = ["id", "userId", "anonymousId", "groupId", "custom_id"];

/// The customer's own id of the company of a group call.
pub(super) fn group_id(call: &Call<'_>) -> Result<GroupId, CallFault> {
    let given = call
        .group_id
        .as_deref()
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty())
        .or_else(|| named(&call.fields, &["groupId", "group_id", "id"]))
        .or_else(|| named(&call.context, &["groupId"]));
    let Some(id) = given else {
        return Err(CallFault::new("no_group_id", "the group call has no `groupId`"));
    };
    if id.chars().count() > TEXT {
        let reason = format!("`groupId` is longer than {TEXT} characters");
        return Err(CallFault::new("id_too_long", reason));
    }
    Ok(GroupId::from(id.as_str()))
}

/// The fields a group writes.
pub(super) fn fields(call: &Call<'_>, notes: &mut Notes) -> FieldSet {
    let mut traits = Leaves::of(&call.fields);
    let mut set = FieldSet::default();
    traits.discard(&IDENTITY);
    put_text(&mut set, &mut traits, &("name", &["name", "company", "company_name"], TEXT), notes);
    put_text(&mut set, &mut traits, &("email", &["email"], TEXT), notes);
    put_text(&mut set, &mut traits, &("description", &["description"], TEXT), notes);
    put_address(&mut set, &mut traits, notes);
    put_size(&mut set, &mut traits, notes);
    put_phones(&mut set, &mut traits, notes);
    put_tags(&mut set, &mut traits, notes);
    let mut customs = Customs::new(&mut set, call.fields.len());
    for leaf in traits.rest() {
        customs.add(&leaf.flat, leaf.json, notes);
    }
    set
}

/// The address as one line, and its parts where User.com has a field for them.
fn put_address(set: &mut FieldSet, traits: &mut Leaves<'_>, notes: &mut Notes) {
    const STREET: &[&str] = &["address.street", "address.line1", "address.street1"];
    let mut part = |spellings: &[&str]| {
        let found = traits.take(spellings).and_then(text);
        found.map(|found| found.trim().to_owned())
    };
    let line = part(&["address"]);
    let street = part(STREET);
    // Only what the address itself holds goes into its line; a top-level field is used beside it.
    let inner = (
        part(&["address.city"]),
        part(&["address.region", "address.state"]),
        part(&["address.country"]),
        part(&POSTAL_CODE[7..]),
    );
    let (city, region, country, postal_code) = (
        part(&["city"]).or_else(|| inner.0.clone()),
        part(&["region", "state"]).or_else(|| inner.1.clone()),
        part(&["country"]).or_else(|| inner.2.clone()),
        part(&POSTAL_CODE[..7]).or_else(|| inner.3.clone()),
    );
    let town = match (inner.3, inner.0) {
        (Some(code), Some(city)) => Some(format!("{code} {city}")),
        (code, city) => code.or(city),
    };
    let whole = [street, town, inner.1, inner.2];
    let joined: Vec<String> = whole.into_iter().flatten().collect();
    let line = line.or_else(|| (!joined.is_empty()).then(|| joined.join(", ")));
    for (name, value, cap) in [
        ("address", line, TEXT),
        ("city", city, SHORT),
        ("region", region, SHORT),
        ("country", country, SHORT),
        ("postal_code", postal_code, SHORT),
    ] {
        if let Some(value) = value {
            put_string(set, name, &value, cap, notes);
        }
    }
}

fn put_size(set: &mut FieldSet, traits: &mut Leaves<'_>, notes: &mut Notes) {
    let spellings = ["employees", "size", "employee_count", "employeeCount"];
    let Some(json) = traits.take(&spellings) else {
        return;
    };
    match text(json).and_then(|number| whole(number.trim())) {
        Some(number) => standard(set, "size", number.to_string()),
        None => notes.dropped("size", "a whole number is needed"),
    }
}

/// `120`, `120.0`; not `1.5`, not `11-50`.
fn whole(number: &str) -> Option<u64> {
    if let Ok(number) = number.parse() {
        return Some(number);
    }
    let (whole, fraction) = number.split_once('.')?;
    (fraction.bytes().all(|b| b == b'0') && !whole.is_empty()).then(|| whole.parse().ok()).flatten()
}

fn put_phones(set: &mut FieldSet, traits: &mut Leaves<'_>, notes: &mut Notes) {
    let spellings = ["phone", "phone_number", "phoneNumber", "phones", "phone_numbers"];
    let Some(json) = traits.take(&spellings) else {
        return;
    };
    let given: Vec<&str> = match elements(json) {
        Some(list) => list.iter().map(|element| element.get()).collect(),
        None => vec![json],
    };
    let mut phones = Vec::with_capacity(given.len());
    for phone in given {
        let Some(phone) = text(phone) else {
            notes.dropped("phone_numbers", "a phone number is a text");
            continue;
        };
        let dense: String = phone.chars().filter(|c| !c.is_whitespace()).collect();
        if !dense.is_empty() {
            phones.push(crop_noting(&dense, SHORT, "phone_numbers", notes).to_owned());
        }
    }
    if !phones.is_empty() {
        standard(set, "phone_numbers", serde_json::Value::from(phones).to_string());
    }
}
