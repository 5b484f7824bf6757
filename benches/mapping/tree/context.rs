//! What an identify's context says of device, browser and place.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::agents::{Agent, Agents};
use super::body::Body;
use super::leaves::Leaves;
use super::spellings::Spellings;
use super::text::word;

/// What is read of the context.
#[derive(Clone, Copy)]
enum Part {
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

impl From<Part> for usize {
    fn from(part: Part) -> Self {
        part as Self
    }
}

static PARTS: LazyLock<Spellings> = LazyLock::new(|| {
    Spellings::new(&[
        (Part::UserAgent, &["userAgent"]),
        (Part::Brands, &["userAgentData.brands"]),
        (Part::BrandVersions, &["userAgentData.fullVersionList"]),
        (Part::OsName, &["os.name"]),
        (Part::OsVersion, &["os.version"]),
        (Part::DeviceName, &["device.name", "device.model"]),
        (Part::DeviceType, &["device.type"]),
        (Part::Locale, &["locale"]),
        (Part::Width, &["screen.width"]),
        (Part::Height, &["screen.height"]),
        (Part::Ip, &["ip"]),
        (Part::PageUrl, &["page.url"]),
        (Part::City, &["location.city"]),
        (Part::Country, &["location.country"]),
        (Part::Timezone, &["timezone"]),
    ])
});

/// What is around a user.
pub(super) struct Around(Leaves<{ Part::Timezone as usize + 1 }>);

impl Around {
    pub(super) fn of(context: Map<String, Value>) -> Self {
        Self(Leaves::among(context, &PARTS))
    }

    pub(super) fn city(&mut self) -> Option<Value> {
        self.0.take(Part::City)
    }

    pub(super) fn country(&mut self) -> Option<Value> {
        self.0.take(Part::Country)
    }

    pub(super) fn timezone(&mut self) -> Option<Value> {
        self.0.take(Part::Timezone)
    }

    /// Adds what the context speaks of and the body does not have.
    pub(super) fn tell(mut self, body: &mut Body, agents: &Agents) {
        let mut tell = |name, value: Option<String>| {
            if let Some(value) = value {
                body.custom_if_missing(name, value);
            }
        };
        let user_agent = self.word(Part::UserAgent);
        let agent = user_agent.as_ref().and_then(|agent| agents.get(agent));
        tell("user_agent", user_agent);
        tell("os", self.system(agent));
        tell("device_name", self.word(Part::DeviceName));
        let kind = self.word(Part::DeviceType).map(|kind| kind.to_lowercase());
        tell("device_type", kind.or_else(|| agent?.device.clone()));
        tell("language", self.word(Part::Locale));
        tell("resolution", self.resolution());
        let ip = self.word(Part::Ip);
        tell("ip_address", ip.map(unbracketed));
        let (family, version) = match self.brand() {
            Some(brand) => (Some(brand.brand), brand.version),
            None => (
                agent.and_then(|agent| agent.family.clone()),
                agent.and_then(|agent| agent.version.clone()),
            ),
        };
        tell("browser_family", family);
        tell("browser_version", version);
        tell("current_url", self.word(Part::PageUrl));
    }

    fn word(&mut self, part: Part) -> Option<String> {
        self.0.take(part).and_then(word)
    }

    /// `name version`, from the context if it has a name, else from the user agent.
    fn system(&mut self, agent: Option<&Agent>) -> Option<String> {
        match (self.word(Part::OsName), self.word(Part::OsVersion)) {
            (Some(name), Some(version)) => Some(name + " " + &version),
            (Some(name), None) => Some(name),
            (None, _) => agent?.os.clone(),
        }
    }

    /// `WIDTHxHEIGHT`, if both are positive numbers.
    fn resolution(&mut self) -> Option<String> {
        let mut side = |part| {
            let length = match self.0.take(part)? {
                Value::Number(number) => number.as_f64()?,
                Value::String(text) => text.trim().parse().ok()?,
                _ => return None,
            };
            (length.is_finite() && length >= 1.0).then_some(length)
        };
        let (width, height) = (side(Part::Width)?, side(Part::Height)?);
        Some(format!("{width:.0}x{height:.0}"))
    }

    /// Browser and version from `userAgentData`, whose lists have decoys among the real names.
    fn brand(&mut self) -> Option<Brand> {
        let list = self.0.take(Part::BrandVersions).or_else(|| self.0.take(Part::Brands))?;
        let Value::Array(list) = list else {
            return None;
        };
        let brands = list.into_iter().filter_map(|brand| serde_json::from_value(brand).ok());
        let mut brands: Vec<Brand> =
            brands.filter(|brand: &Brand| !is_decoy(&brand.brand)).collect();
        // The engine's own name is listed beside the product's; the product says more.
        let product = brands.iter().position(|brand| brand.brand != "Chromium").unwrap_or(0);
        let mut brand = (product < brands.len()).then(|| brands.swap_remove(product))?;
        match &*brand.brand {
            "Google Chrome" | "Chromium" => brand.brand = "Chrome".to_owned(),
            "Microsoft Edge" => brand.brand = "Edge".to_owned(),
            _ => {}
        }
        Some(brand)
    }
}

/// One of the names a browser gives itself.
#[derive(serde::Deserialize)]
struct Brand {
    brand: String,
    #[serde(default)]
    version: Option<String>,
}

fn unbracketed(ip: String) -> String {
    match ip.contains(['[', ']']) {
        true => ip.trim_start_matches('[').trim_end_matches(']').to_owned(),
        false => ip,
    }
}

fn is_decoy(brand: &str) -> bool {
    let letters: String = brand.chars().filter(char::is_ascii_alphabetic).collect();
    letters.eq_ignore_ascii_case("NotABrand")
}
