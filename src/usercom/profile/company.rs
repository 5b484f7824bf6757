//! Group calls: traits become the fields of a company.
//!
//! A name is written only if the call has one: an existing company is not renamed to its id. A new
//! company gets its id as its name when it is created.

use std::sync::LazyLock;

use super::aliases::AliasTable;
use super::flattened::{FlattenedTraits, elements, text};
use super::limits::{
    CustomAttributes, MAX_PHONES, MAX_SHORT_LEN, MAX_TEXT_LEN, ReservedNames, reserved_names,
    without_nuls,
};
use super::person::{
    TOO_LONG, dense, named, put_email, put_list, put_string, put_tags, put_text, standard,
};
use super::{PlanError, PlanWarnings, Settings};
use crate::call::Call;
use crate::schedule::{ExternalCompanyId, FieldClass, PackedFields};

/// What a trait may be other than an attribute. Fields inside of `address` are distinguished from
/// those next to it.
#[derive(Debug, Clone, Copy)]
enum CompanyTrait {
    /// Identifies a user and is never an attribute of a company.
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

type CompanyTraits<'c> = FlattenedTraits<'c, { CompanyTrait::Tags as usize + 1 }>;

impl From<CompanyTrait> for usize {
    fn from(target: CompanyTrait) -> Self {
        target as Self
    }
}

static TRAITS: LazyLock<AliasTable> = LazyLock::new(|| {
    AliasTable::new(&[
        (CompanyTrait::Identity, &["id", "userId", "anonymousId", "groupId", "custom_id"]),
        (CompanyTrait::Name, &["name", "company", "company_name"]),
        (CompanyTrait::Email, &["email"]),
        (CompanyTrait::Description, &["description"]),
        (CompanyTrait::Address, &["address"]),
        (CompanyTrait::Street, &["address.street", "address.line1", "address.street1"]),
        (CompanyTrait::InnerCity, &["address.city"]),
        (CompanyTrait::InnerRegion, &["address.region", "address.state"]),
        (CompanyTrait::InnerCountry, &["address.country"]),
        (
            CompanyTrait::InnerPostalCode,
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
        (CompanyTrait::City, &["city"]),
        (CompanyTrait::Region, &["region", "state"]),
        (CompanyTrait::Country, &["country"]),
        (
            CompanyTrait::PostalCode,
            &["zip", "zipcode", "zip_code", "zipCode", "postalcode", "postal_code", "postalCode"],
        ),
        (CompanyTrait::Size, &["employees", "size", "employee_count", "employeeCount"]),
        (
            CompanyTrait::Phones,
            &["phone", "phone_number", "phoneNumber", "phones", "phone_numbers"],
        ),
        (CompanyTrait::Tags, &["tags"]),
    ])
});

/// User.com's own fields, in both versions of its API: those that are written, the ids, and the
/// read-only ones.
static RESERVED_NAMES: LazyLock<ReservedNames> = LazyLock::new(|| {
    reserved_names(&[
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
        "id",
        "company_id",
        "company_custom_id",
        "user_id",
        "user_custom_id",
        "approx_employees",
        "employees",
        "members",
        "member_since",
        "assigned_to",
        "attributes",
        "created_at",
        "updated_at",
    ])
});

/// The external id of the company of a group call.
pub(super) fn group_id(
    call: &Call<'_>,
    settings: &Settings,
) -> Result<ExternalCompanyId, PlanError> {
    let given = call
        .group_id
        .as_deref()
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty())
        .or_else(|| named(&call.fields, &["groupId", "group_id", "id"]))
        .or_else(|| named(&call.context, &["groupId"]));
    let Some(id) = given else {
        return Err(PlanError::new("no_group_id", "the group call has no `groupId`"));
    };
    if id.contains('\0') {
        let reason = "`groupId` has a NUL character in it, which no id can have";
        return Err(PlanError::new("id_not_text", reason));
    }
    let max = settings.max_id_length();
    if id.chars().count() > max {
        let reason = format!("`groupId` is longer than {max} characters");
        return Err(PlanError::new("id_too_long", reason));
    }
    Ok(ExternalCompanyId::from(&*settings.own_id(&id)))
}

/// The fields that a group call writes.
pub(super) fn fields(call: &Call<'_>, notes: &mut PlanWarnings) -> PackedFields {
    let traits = CompanyTraits::of(&call.fields, &TRAITS);
    let mut set = PackedFields::with_capacity(24, 768);
    put_text(&mut set, "name", traits.get(CompanyTrait::Name), MAX_TEXT_LEN, notes);
    put_email(&mut set, traits.get(CompanyTrait::Email), notes);
    put_text(&mut set, "description", traits.get(CompanyTrait::Description), MAX_TEXT_LEN, notes);
    put_address(&mut set, &traits, notes);
    put_size(&mut set, &traits, notes);
    put_phones(&mut set, &traits, notes);
    put_tags(&mut set, traits.get(CompanyTrait::Tags), notes);
    let mut customs = CustomAttributes::new(&mut set, &RESERVED_NAMES);
    for other in traits.rest() {
        customs.add(other, notes);
    }
    set
}

/// The address as one line, and its parts where User.com has a field for them.
fn put_address(set: &mut PackedFields, traits: &CompanyTraits<'_>, notes: &mut PlanWarnings) {
    let part = |target| {
        let found = traits.get(target).and_then(text)?;
        Some(found.trim().to_owned())
    };
    // The address line contains only what the address object holds; a field next to it is used for
    // its own field.
    let (inner_city, inner_region) =
        (part(CompanyTrait::InnerCity), part(CompanyTrait::InnerRegion));
    let (inner_country, inner_code) =
        (part(CompanyTrait::InnerCountry), part(CompanyTrait::InnerPostalCode));
    let town = match (&inner_code, &inner_city) {
        (Some(code), Some(city)) => Some(format!("{code} {city}")),
        (code, city) => code.clone().or_else(|| city.clone()),
    };
    let line = part(CompanyTrait::Address).or_else(|| {
        let whole = [part(CompanyTrait::Street), town, inner_region.clone(), inner_country.clone()];
        let whole: Vec<String> = whole.into_iter().flatten().collect();
        (!whole.is_empty()).then(|| whole.join(", "))
    });
    for (name, value, cap) in [
        ("address", line, MAX_TEXT_LEN),
        ("city", part(CompanyTrait::City).or(inner_city), MAX_SHORT_LEN),
        ("region", part(CompanyTrait::Region).or(inner_region), MAX_SHORT_LEN),
        ("country", part(CompanyTrait::Country).or(inner_country), MAX_SHORT_LEN),
        ("postal_code", part(CompanyTrait::PostalCode).or(inner_code), MAX_SHORT_LEN),
    ] {
        match value {
            Some(code) if name == "postal_code" && code.chars().count() > cap => {
                notes.dropped(name, TOO_LONG);
            }
            Some(value) => put_string(set, name, &value, cap, notes),
            None => {}
        }
    }
}

fn put_size(set: &mut PackedFields, traits: &CompanyTraits<'_>, notes: &mut PlanWarnings) {
    let Some(json) = traits.get(CompanyTrait::Size) else {
        return;
    };
    match text(json).and_then(|number| whole(number.trim())) {
        Some(number) => standard(set, "size", &number.to_string()),
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

fn put_phones(set: &mut PackedFields, traits: &CompanyTraits<'_>, notes: &mut PlanWarnings) {
    let Some(json) = traits.get(CompanyTrait::Phones) else {
        return;
    };
    let given: Vec<&str> = match elements(json) {
        Some(list) => list.collect(),
        None => vec![json],
    };
    let mut phones: Vec<String> = Vec::new();
    for phone in given {
        match text(phone).map(|phone| without_nuls(&dense(&phone)).into_owned()) {
            None => notes.dropped("phone_numbers", "a phone number is a text"),
            Some(phone) if phone.is_empty() => {}
            Some(phone) if phone.chars().count() > MAX_SHORT_LEN => {
                notes.dropped("phone_numbers", TOO_LONG)
            }
            Some(_) if phones.len() == MAX_PHONES => {
                notes.dropped("phone_numbers", "a record sets at most 100 phone numbers");
            }
            Some(phone) => phones.push(phone),
        }
    }
    let phones: Vec<&str> = phones.iter().map(String::as_str).collect();
    put_list(set, "phone_numbers", FieldClass::Standard, &phones);
}
