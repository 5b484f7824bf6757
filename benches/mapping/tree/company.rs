//! Group: traits to the body of a company.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::body::Body;
use super::leaves::Leaves;
use super::person::{checked, named, put_tags};
use super::spellings::Spellings;
use super::table::Call;
use super::text::{SHORT, TEXT, cropped, dense, text, word};
use super::{Fault, Notes};

/// What a trait may be beside an attribute. What lies in the address is told apart from what
/// stands beside it.
#[derive(Clone, Copy)]
enum Trait {
    Identity,
    Name,
    Email,
    Description,
    Address,
    Street,
    InnerCity,
    InnerRegion,
    InnerCountry,
    InnerPostalCode,
    City,
    Region,
    Country,
    PostalCode,
    Size,
    Phones,
    Tags,
}

type Traits = Leaves<{ Trait::Tags as usize + 1 }>;

impl From<Trait> for usize {
    fn from(target: Trait) -> Self {
        target as Self
    }
}

/// The fields that are written, and the id.
const OWN_NAMES: [&str; 12] = [
    "custom_id",
    "name",
    "email",
    "description",
    "address",
    "city",
    "region",
    "country",
    "postal_code",
    "size",
    "phone_numbers",
    "tags",
];

static TRAITS: LazyLock<Spellings> = LazyLock::new(|| {
    Spellings::new(&[
        (Trait::Identity, &["id", "userId", "anonymousId", "groupId", "custom_id"]),
        (Trait::Name, &["name", "company", "company_name"]),
        (Trait::Email, &["email"]),
        (Trait::Description, &["description"]),
        (Trait::Address, &["address"]),
        (Trait::Street, &["address.street", "address.line1", "address.street1"]),
        (Trait::InnerCity, &["address.city"]),
        (Trait::InnerRegion, &["address.region", "address.state"]),
        (Trait::InnerCountry, &["address.country"]),
        (
            Trait::InnerPostalCode,
            &[
                "address.zip",
                "address.zipcode",
                "address.zip_code",
                "address.zipCode",
                "address.postalcode",
                "address.postal_code",
                "address.postalCode",
            ],
        ),
        (Trait::City, &["city"]),
        (Trait::Region, &["region", "state"]),
        (Trait::Country, &["country"]),
        (
            Trait::PostalCode,
            &["zip", "zipcode", "zip_code", "zipCode", "postalcode", "postal_code", "postalCode"],
        ),
        (Trait::Size, &["employees", "size", "employee_count", "employeeCount"]),
        (Trait::Phones, &["phone", "phone_number", "phoneNumber", "phones", "phone_numbers"]),
        (Trait::Tags, &["tags"]),
    ])
});

/// The body of a group. One without a name is named by its id.
pub(super) fn body(call: Call, notes: &mut Notes) -> Result<Map<String, Value>, Fault> {
    let company = group_id(&call)?;
    let mut traits = Traits::of(call.fields, &TRAITS);
    let mut body = Body::of(company.clone(), &OWN_NAMES);
    body.put_text("name", traits.take(Trait::Name), TEXT, notes);
    body.put_text("email", traits.take(Trait::Email), TEXT, notes);
    body.put_text("description", traits.take(Trait::Description), TEXT, notes);
    put_address(&mut body, &mut traits, notes);
    put_size(&mut body, traits.take(Trait::Size), notes);
    put_phones(&mut body, traits.take(Trait::Phones), notes);
    put_tags(&mut body, traits.take(Trait::Tags), notes);
    for (name, value) in traits.rest {
        body.custom(name, value, notes);
    }
    let mut body = body.done();
    body.entry("name").or_insert_with(|| company.into());
    Ok(body)
}

/// The customer's own id of the company of a call.
fn group_id(call: &Call) -> Result<String, Fault> {
    let given = call.group_id.as_ref().map(|id| id.trim()).filter(|id| !id.is_empty());
    let id = given
        .map(str::to_owned)
        .or_else(|| named(&call.fields, &["groupId", "group_id", "id"]))
        .or_else(|| named(&call.context, &["groupId"]));
    checked(id.ok_or("no company is named")?)
}

/// The address as one line, and its parts where User.com has a field for them.
fn put_address(body: &mut Body, traits: &mut Traits, notes: &mut Notes) {
    let mut part = |target| traits.take(target).and_then(word);
    let (inner_city, inner_region) = (part(Trait::InnerCity), part(Trait::InnerRegion));
    let (inner_country, inner_code) = (part(Trait::InnerCountry), part(Trait::InnerPostalCode));
    let (whole, street) = (part(Trait::Address), part(Trait::Street));
    let line = whole.or_else(|| {
        let town = match (&inner_code, &inner_city) {
            (Some(code), Some(city)) => Some(format!("{code} {city}")),
            (code, city) => code.clone().or_else(|| city.clone()),
        };
        let parts = [&street, &town, &inner_region, &inner_country];
        let parts: Vec<&str> = parts.into_iter().filter_map(|part| part.as_deref()).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    });
    for (name, value, cap) in [
        ("address", line, TEXT),
        ("city", part(Trait::City).or(inner_city), SHORT),
        ("region", part(Trait::Region).or(inner_region), SHORT),
        ("country", part(Trait::Country).or(inner_country), SHORT),
        ("postal_code", part(Trait::PostalCode).or(inner_code), SHORT),
    ] {
        if let Some(value) = value {
            body.put_string(name, value, cap, notes);
        }
    }
}

fn put_size(body: &mut Body, value: Option<Value>, notes: &mut Notes) {
    let Some(value) = value else {
        return;
    };
    match word(value).and_then(|number| whole(&number)) {
        Some(number) => body.put("size", number),
        None => notes.dropped("size", "a whole number is needed"),
    }
}

/// `120`, `120.0`; not `1.5`, not `11-50`.
fn whole(number: &str) -> Option<u64> {
    if let Ok(number) = number.parse() {
        return Some(number);
    }
    let (whole, fraction) = number.split_once('.')?;
    fraction.bytes().all(|b| b == b'0').then(|| whole.parse().ok())?
}

fn put_phones(body: &mut Body, value: Option<Value>, notes: &mut Notes) {
    let given = match value {
        Some(Value::Array(list)) => list,
        Some(one) => vec![one],
        None => return,
    };
    let mut phones = Vec::with_capacity(given.len());
    for phone in given {
        match text(phone).map(dense) {
            Some(phone) if phone.is_empty() => {}
            Some(phone) => phones.push(cropped(phone, SHORT, "phone_numbers", notes)),
            None => notes.dropped("phone_numbers", "a phone number is a text"),
        }
    }
    body.put_list("phone_numbers", phones);
}
