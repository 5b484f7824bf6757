//! Device, browser and location from the context of an identify call, as custom attributes under
//! the names that User.com's own receiver uses. The built-in fields for them are read-only in REST.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::aliases::AliasTable;
use super::browser::{self, Agent};
use super::flattened::{FlattenedTraits, elements, text};
use crate::call::{Object, trimmed};

/// The fields of the context that are used; the rest is not parsed.
#[derive(Debug, Clone, Copy)]
enum ContextPart {
    UserAgent,
    Brands,
    BrandVersions,
    OsName,
    OsVersion,
    DeviceName,
    DeviceType,
    Locale,
    Width,
    Height,
    Ip,
    PageUrl,
    City,
    Country,
    Timezone,
}

impl From<ContextPart> for usize {
    fn from(part: ContextPart) -> Self {
        part as Self
    }
}

static PARTS: LazyLock<AliasTable> = LazyLock::new(|| {
    AliasTable::new(&[
        (ContextPart::UserAgent, &["userAgent"]),
        (ContextPart::Brands, &["userAgentData.brands"]),
        (ContextPart::BrandVersions, &["userAgentData.fullVersionList"]),
        (ContextPart::OsName, &["os.name"]),
        (ContextPart::OsVersion, &["os.version"]),
        (ContextPart::DeviceName, &["device.name", "device.model"]),
        (ContextPart::DeviceType, &["device.type"]),
        (ContextPart::Locale, &["locale"]),
        (ContextPart::Width, &["screen.width"]),
        (ContextPart::Height, &["screen.height"]),
        (ContextPart::Ip, &["ip"]),
        (ContextPart::PageUrl, &["page.url"]),
        (ContextPart::City, &["location.city"]),
        (ContextPart::Country, &["location.country"]),
        (ContextPart::Timezone, &["timezone"]),
    ])
});

/// The context of a user.
pub(super) struct ContextFields<'c>(FlattenedTraits<'c, { ContextPart::Timezone as usize + 1 }>);

impl<'c> ContextFields<'c> {
    pub(super) fn of(context: &'c Object<'_>) -> Self {
        Self(FlattenedTraits::among(context, &PARTS))
    }

    /// JSON text.
    pub(super) fn city(&self) -> Option<&'c str> {
        self.0.get(ContextPart::City)
    }

    /// JSON text.
    pub(super) fn country(&self) -> Option<&'c str> {
        self.0.get(ContextPart::Country)
    }

    /// JSON text.
    pub(super) fn timezone(&self) -> Option<&'c str> {
        self.0.get(ContextPart::Timezone)
    }

    /// Calls the closure with the name and value of each field that the context has.
    pub(super) fn for_each_field(&self, mut each: impl FnMut(&'static str, &str)) {
        let mut tell = |name, value: Option<&str>| {
            if let Some(value) = value {
                each(name, value);
            }
        };
        let user_agent = self.word(ContextPart::UserAgent);
        let agent = user_agent.as_deref().map(browser::parse).unwrap_or_default();
        tell("user_agent", user_agent.as_deref());
        tell("os", self.system(&agent).as_deref());
        tell("device_name", self.word(ContextPart::DeviceName).as_deref());
        let kind = self.word(ContextPart::DeviceType).map(|kind| kind.to_lowercase());
        tell("device_type", kind.as_deref().or(agent.device));
        tell("language", self.word(ContextPart::Locale).as_deref());
        tell("resolution", self.resolution().as_deref());
        tell("ip_address", self.word(ContextPart::Ip).as_deref().map(unbracketed));
        let branded = self.branded();
        let (family, version) = match &branded {
            Some((family, version)) => (Some(family), version.as_ref()),
            None => (agent.family.as_ref(), agent.version.as_ref()),
        };
        tell("browser_family", family.map(String::as_str));
        tell("browser_version", version.map(String::as_str));
        tell("current_url", self.word(ContextPart::PageUrl).as_deref());
    }

    fn word(&self, part: ContextPart) -> Option<Cow<'c, str>> {
        Some(match self.0.get(part).and_then(text)? {
            Cow::Borrowed(word) => Cow::Borrowed(trimmed(word)),
            Cow::Owned(word) => Cow::Owned(word.trim().to_owned()),
        })
    }

    /// `name version`, from the context if it has a name, otherwise from the user agent.
    fn system<'a>(&'a self, agent: &'a Agent) -> Option<Cow<'a, str>> {
        match (self.word(ContextPart::OsName), self.word(ContextPart::OsVersion)) {
            (Some(name), Some(version)) => Some([&*name, " ", &*version].concat().into()),
            (Some(name), None) => Some(name),
            (None, _) => agent.os.as_deref().map(Cow::Borrowed),
        }
    }

    /// `WIDTHxHEIGHT`, if both are positive numbers.
    fn resolution(&self) -> Option<String> {
        let (width, height) = (self.word(ContextPart::Width)?, self.word(ContextPart::Height)?);
        Some([&*pixels(&width)?, "x", &*pixels(&height)?].concat())
    }

    /// Browser and version from `userAgentData`, whose lists contain invented names among the real
    /// ones.
    fn branded(&self) -> Option<(String, Option<String>)> {
        let list =
            self.0.get(ContextPart::BrandVersions).or_else(|| self.0.get(ContextPart::Brands))?;
        let brands: Vec<Brand> = elements(list)?
            .filter_map(|brand| serde_json::from_str(brand).ok())
            .filter(|brand: &Brand| !is_decoy(&brand.brand))
            .collect();
        // The engine is listed next to the product; the product is the more specific name.
        let chosen =
            brands.iter().find(|brand| brand.brand != "Chromium").or_else(|| brands.first())?;
        Some((browser::product(&chosen.brand).to_owned(), chosen.version.clone()))
    }
}

/// One of the names of a browser.
#[derive(serde::Deserialize)]
struct Brand {
    brand: String,
    #[serde(default)]
    version: Option<String>,
}

/// A positive number without its fraction.
fn pixels(number: &str) -> Option<Cow<'_, str>> {
    // Most are whole numbers, and are written as they came.
    let is_whole = !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit());
    if is_whole && (1..=9).contains(&number.len()) {
        return Some(Cow::Borrowed(number));
    }
    let length: f64 = number.parse().ok()?;
    (length.is_finite() && length >= 1.0).then(|| Cow::Owned(format!("{length:.0}")))
}

fn unbracketed(ip: &str) -> &str {
    ip.trim_start_matches('[').trim_end_matches(']')
}

/// `Not A;Brand`, `Not)A;Brand`, `Not/A)Brand`, `Not_A Brand`: invented names that keep sites from
/// relying on the format of the list.
fn is_decoy(brand: &str) -> bool {
    let letters: String = brand.chars().filter(char::is_ascii_alphabetic).collect();
    letters.eq_ignore_ascii_case("NotABrand")
}
