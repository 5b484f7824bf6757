//! What an identify's context says of device, browser and place, as custom attributes under the
//! names User.com's own receiver uses. REST keeps the built-in fields of that kind read-only.

use super::browser::{self, Agent};
use super::leaves::{Leaves, elements, text};

/// What the names of all that is read of the context begin with; the rest is not even opened.
pub(super) const ROOTS: &[&str] =
    &["userAgent", "os", "device", "locale", "screen", "ip", "page", "location", "timezone"];

/// Name and value of each field the context speaks of.
pub(super) fn fields(context: &mut Leaves<'_>) -> Vec<(&'static str, String)> {
    let user_agent = word(context, &["userAgent"]);
    let agent = user_agent.as_deref().map(browser::parse).unwrap_or_default();
    let (family, version) =
        branded(context).unwrap_or((agent.family.clone(), agent.version.clone()));
    let entries = [
        ("os", system(context, &agent)),
        ("device_name", word(context, &["device.name", "device.model"])),
        (
            "device_type",
            word(context, &["device.type"])
                .map(|kind| kind.to_lowercase())
                .or_else(|| agent.device.map(str::to_owned)),
        ),
        ("language", word(context, &["locale"])),
        ("resolution", resolution(context)),
        ("ip_address", word(context, &["ip"]).map(|ip| unbracketed(&ip))),
        ("browser_family", family),
        ("browser_version", version),
        ("current_url", word(context, &["page.url"])),
    ];
    std::iter::once(("user_agent", user_agent))
        .chain(entries)
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

fn word(context: &mut Leaves<'_>, spellings: &[&str]) -> Option<String> {
    context.take(spellings).and_then(text).map(|word| word.trim().to_owned())
}

/// `name version`, from the context if it has a name, else from the user agent.
fn system(context: &mut Leaves<'_>, agent: &Agent) -> Option<String> {
    let version = word(context, &["os.version"]);
    match (word(context, &["os.name"]), version) {
        (Some(name), Some(version)) => Some(format!("{name} {version}")),
        (Some(name), None) => Some(name),
        (None, _) => agent.os.clone(),
    }
}

/// `WIDTHxHEIGHT`, if both are positive numbers.
fn resolution(context: &mut Leaves<'_>) -> Option<String> {
    let mut side = |name: &str| {
        let length: f64 = word(context, &[name])?.parse().ok()?;
        (length.is_finite() && length >= 1.0).then(|| format!("{length:.0}"))
    };
    let (width, height) = (side("screen.width"), side("screen.height"));
    Some(format!("{}x{}", width?, height?))
}

fn unbracketed(ip: &str) -> String {
    ip.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// Browser and version from `userAgentData.brands`, which lists decoys among the real names.
fn branded(context: &mut Leaves<'_>) -> Option<(Option<String>, Option<String>)> {
    #[derive(serde::Deserialize)]
    struct Brand {
        brand: String,
        #[serde(default)]
        version: Option<String>,
    }
    let list = context
        .take(&["userAgentData.fullVersionList"])
        .or_else(|| context.take(&["userAgentData.brands"]))?;
    context.discard(&["userAgentData.brands"]);
    let brands: Vec<Brand> = elements(list)?
        .iter()
        .filter_map(|brand| serde_json::from_str(brand.get()).ok())
        .filter(|brand: &Brand| !is_decoy(&brand.brand))
        .collect();
    // The engine's own name is listed beside the product's; the product says more.
    let chosen =
        brands.iter().find(|brand| brand.brand != "Chromium").or_else(|| brands.first())?;
    let family = browser::product(&chosen.brand).to_owned();
    Some((Some(family), chosen.version.clone()))
}

/// `Not A;Brand`, `Not)A;Brand`, `Not/A)Brand`, `Not_A Brand`: made-up names that keep sites from
/// relying on the list's shape.
fn is_decoy(brand: &str) -> bool {
    let letters: String = brand.chars().filter(char::is_ascii_alphabetic).collect();
    letters.eq_ignore_ascii_case("NotABrand")
}
