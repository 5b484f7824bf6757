//! The reference: the code that one would write for exactly these records. A typed serde
//! skeleton, raw slices copied through, one output buffer a body.
//!
//! It makes the same bodies as the crate (the benchmark compares them), but reads one spelling set
//! only, holds to no limits but the lengths, and fails where a record is not of its shape.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

type Text<'a> = Option<Cow<'a, str>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    user_id: Text<'a>,
    #[serde(borrow)]
    anonymous_id: Text<'a>,
    #[serde(borrow)]
    message_id: Text<'a>,
    #[serde(borrow)]
    timestamp: Text<'a>,
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    group_id: Text<'a>,
    #[serde(borrow)]
    traits: Option<&'a RawValue>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
    #[serde(borrow)]
    context: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    #[serde(borrow)]
    user_agent: Text<'a>,
    #[serde(borrow)]
    locale: Text<'a>,
    #[serde(borrow)]
    ip: Text<'a>,
    #[serde(borrow)]
    timezone: Text<'a>,
    #[serde(borrow)]
    os: Option<System<'a>>,
    #[serde(borrow)]
    device: Option<Device<'a>>,
    screen: Option<Screen>,
    #[serde(borrow)]
    page: Option<Page<'a>>,
    #[serde(borrow)]
    traits: Option<Entries<'a>>,
}

#[derive(Deserialize)]
struct System<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    version: Text<'a>,
}

#[derive(Deserialize)]
struct Device<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    r#type: Text<'a>,
}

#[derive(Deserialize)]
struct Screen {
    width: Option<f64>,
    height: Option<f64>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    url: Text<'a>,
    #[serde(borrow)]
    path: Text<'a>,
}

#[derive(Deserialize)]
struct PageOnly<'a> {
    #[serde(borrow)]
    page: Option<Page<'a>>,
}

/// An object's entries as they stand.
struct Entries<'a>(Vec<(Key<'a>, &'a RawValue)>);

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(16);
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        d.deserialize_map(All)
    }
}

fn entries(raw: Option<&RawValue>) -> Vec<(Key<'_>, &RawValue)> {
    let raw = raw.map_or("{}", RawValue::get);
    serde_json::from_str::<Entries<'_>>(raw).expect("an object").0
}

/// A body as it grows.
struct Body(String);

impl Body {
    fn new() -> Self {
        Self(String::with_capacity(512))
    }

    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        quote(&mut self.0, name);
        self.0.push(':');
    }

    fn raw(&mut self, name: &str, json: &str) {
        self.name(name);
        self.0.push_str(json);
    }

    fn text(&mut self, name: &str, text: &str, cap: usize) {
        self.name(name);
        quote(&mut self.0, crop(text.trim(), cap));
    }

    fn maybe(&mut self, name: &str, text: Option<&str>, cap: usize) {
        if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
            self.text(name, text, cap);
        }
    }

    /// A custom attribute: whatever it is, as a string.
    fn custom(&mut self, prefix: &str, name: &str, json: &str) {
        self.0.push(',');
        self.0.push('"');
        if !prefix.is_empty() {
            self.0.push_str(prefix);
            self.0.push('_');
        }
        self.0.push_str(name);
        self.0.push_str("\":");
        match json.as_bytes()[0] {
            b'"' if json.len() <= 257 => self.0.push_str(json),
            b'"' => quote(&mut self.0, crop(&text(json), 255)),
            _ => quote(&mut self.0, crop(json, 255)),
        }
    }

    fn done(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn quote(out: &mut String, text: &str) {
    if text.bytes().any(|b| b < 0x20 || b == b'"' || b == b'\\') {
        out.push_str(&serde_json::Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

fn crop(text: &str, cap: usize) -> &str {
    if text.len() <= cap {
        return text;
    }
    text.char_indices().nth(cap).map_or(text, |(end, _)| &text[..end])
}

fn text(json: &str) -> Cow<'_, str> {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if !inner.contains('\\') => Cow::Borrowed(inner),
        Some(_) => Cow::Owned(serde_json::from_str(json).expect("a string")),
        None => Cow::Borrowed(json),
    }
}

fn opened<'a>(prefix: &str, json: &'a str, each: &mut impl FnMut(&str, &'a str)) {
    match json.as_bytes()[0] {
        b'n' => {}
        b'{' => {
            let inner: Entries<'_> = serde_json::from_str(json).expect("an object");
            for (Key(key), value) in inner.0 {
                opened(&format!("{prefix}_{key}"), value.get(), each);
            }
        }
        _ => each(prefix, json),
    }
}

/// Browser and version by user agent.
pub(crate) type Agents = HashMap<String, (Option<String>, Option<String>)>;

/// The body of one record's write; empty for what is no call.
pub(crate) fn body(record: &str, agents: &Agents, now: Timestamp) -> String {
    let event: Event<'_> = serde_json::from_str(record).expect("of our shape");
    std::hint::black_box(&event.message_id);
    let user = event.user_id.as_deref().or(event.anonymous_id.as_deref()).expect("a user id");
    let at = || {
        let at = event.timestamp.as_deref().map(|at| at.parse::<Timestamp>().expect("a moment"));
        at.map_or(now, |at| at.min(now))
    };
    match &*event.r#type {
        "identify" => identify(user, &event, agents),
        "track" => track(&event, at()),
        "page" => page(user, &event, at()),
        "group" => group(&event),
        _ => String::new(),
    }
}

fn track(event: &Event<'_>, at: Timestamp) -> String {
    let mut body = Body::new();
    body.text("name", event.event.as_deref().expect("named"), 255);
    body.name("timestamp");
    write!(body.0, "{}", at.as_second()).expect("a string takes all");
    let mut data = Body::new();
    for (Key(name), value) in entries(event.properties) {
        let mut put = |name: &str, json: &str| match json.as_bytes()[0] {
            b'"' if json.len() <= 257 => data.raw(name, json),
            b'"' => data.text(name, &text(json), 255),
            b'[' => data.text(name, json, 255),
            _ => data.raw(name, json),
        };
        match value.get().as_bytes()[0] {
            b'{' => opened(&name, value.get(), &mut put),
            b'n' => {}
            _ => put(&name, value.get()),
        }
    }
    if !data.0.is_empty() {
        body.raw("data", &data.done());
    }
    body.done()
}

fn page(user: &str, event: &Event<'_>, at: Timestamp) -> String {
    let context = event.context.expect("pages have a context").get();
    let context: PageOnly<'_> = serde_json::from_str(context).expect("of our shape");
    let page = context.page.expect("pages have one");
    let url = page.url.as_deref().expect("pages have a URL");
    let rest = url.split_once("://").expect("a whole URL").1;
    let (domain, from_url) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = page.path.as_deref().unwrap_or(from_url);
    let path = &path[..path.find(['?', '#']).unwrap_or(path.len())];
    let mut body = Body::new();
    body.text("client_user", user, 255);
    body.text("page_domain", domain, 255);
    body.text("page_path", path, 1024);
    body.name("timestamp");
    write!(body.0, "\"{at}\"").expect("a string takes all");
    body.done()
}

fn identify(user: &str, event: &Event<'_>, agents: &Agents) -> String {
    let context = event.context.expect("a context").get();
    let mut context: Context<'_> = serde_json::from_str(context).expect("of our shape");
    let mut traits = entries(event.traits);
    for (key, value) in context.traits.take().map(|traits| traits.0).unwrap_or_default() {
        if !traits.iter().any(|(known, _)| known.0 == key.0) {
            traits.push((key, value));
        }
    }
    let mut body = Body::new();
    body.text("custom_id", user, 255);
    let mut customs: Vec<(&str, Cow<'_, str>, &str)> = Vec::with_capacity(16);
    let mut country = None;
    for (Key(key), value) in &traits {
        let json = value.get();
        match &**key {
            _ if json == "null" => {}
            "email" => body.maybe("email", Some(&text(json)), 255),
            "firstName" | "firstname" | "first_name" => {
                body.maybe("first_name", Some(&text(json)), 40);
            }
            "lastName" | "lastname" | "last_name" => body.maybe("last_name", Some(&text(json)), 40),
            "phone" => {
                let dense: String = text(json).chars().filter(|c| !c.is_whitespace()).collect();
                body.maybe("phone_number", Some(&dense), 64);
            }
            "gender" => match &*text(json).trim().to_lowercase() {
                "male" | "m" | "man" | "2" => body.raw("gender", "2"),
                "female" | "f" | "w" | "woman" | "k" | "3" => body.raw("gender", "3"),
                "unknown" | "u" | "1" => body.raw("gender", "1"),
                _ => {}
            },
            "avatar" => body.maybe("gravatar_url", Some(&text(json)), 255),
            "country" => country = Some(json),
            "tags" => {
                if json != "[]" {
                    body.raw("tags", json);
                }
            }
            "id" | "userId" | "anonymousId" => {}
            "address" => {
                let address: Entries<'_> = serde_json::from_str(json).expect("an object");
                for (Key(key), value) in address.0 {
                    match &*key {
                        "city" => body.maybe("city", Some(&text(value.get())), 64),
                        "state" | "region" => body.maybe("region", Some(&text(value.get())), 64),
                        "country" => country = country.or(Some(value.get())),
                        _ => customs.push(("address", key, value.get())),
                    }
                }
            }
            _ if json.starts_with('{') => {
                let inner: Entries<'_> = serde_json::from_str(json).expect("an object");
                for (Key(inner), value) in inner.0 {
                    customs.push((key, inner, value.get()));
                }
            }
            _ => customs.push(("", Cow::Borrowed(key), json)),
        }
    }
    body.maybe("country", country.map(text).as_deref(), 64);
    body.maybe("timezone", context.timezone.as_deref(), 255);
    for (prefix, name, json) in &customs {
        body.custom(prefix, name, json);
    }
    around(&mut body, &context, agents);
    body.done()
}

/// What the context says of device and browser.
fn around(body: &mut Body, context: &Context<'_>, agents: &Agents) {
    if let Some(os) = &context.os {
        body.name("os");
        let name = os.name.as_deref().unwrap_or_default();
        match os.version.as_deref().filter(|version| !version.is_empty()) {
            Some(version) => write!(body.0, "\"{name} {version}\"").expect("a string takes all"),
            None => quote(&mut body.0, name),
        }
    }
    if let Some(device) = &context.device {
        body.maybe("device_name", device.name.as_deref().or(device.model.as_deref()), 255);
        let kind = device.r#type.as_deref().map(str::to_lowercase);
        body.maybe("device_type", kind.as_deref(), 255);
    }
    if let Some(Screen { width: Some(width), height: Some(height) }) = context.screen {
        body.name("resolution");
        write!(body.0, "\"{width:.0}x{height:.0}\"").expect("a string takes all");
    }
    body.maybe("language", context.locale.as_deref(), 255);
    body.maybe("ip_address", context.ip.as_deref(), 255);
    body.maybe("user_agent", context.user_agent.as_deref(), 255);
    let agent = context.user_agent.as_deref().and_then(|agent| agents.get(agent));
    if let Some((family, version)) = agent {
        body.maybe("browser_family", family.as_deref(), 255);
        body.maybe("browser_version", version.as_deref(), 255);
    }
    let url = context.page.as_ref().and_then(|page| page.url.as_deref());
    body.maybe("current_url", url, 255);
}

fn group(event: &Event<'_>) -> String {
    let mut body = Body::new();
    body.text("custom_id", event.group_id.as_deref().expect("a company"), 255);
    let mut customs: Vec<(Cow<'_, str>, &str)> = Vec::with_capacity(8);
    for (Key(key), value) in entries(event.traits) {
        let json = value.get();
        match &*key {
            _ if json == "null" => {}
            "name" | "email" | "description" => body.maybe(&key, Some(&text(json)), 255),
            "employees" => body.raw("size", json),
            "phone" => {
                body.name("phone_numbers");
                let dense: String = text(json).chars().filter(|c| !c.is_whitespace()).collect();
                body.0.push('[');
                quote(&mut body.0, &dense);
                body.0.push(']');
            }
            "address" => address(&mut body, json),
            "size" => {}
            _ => customs.push((key, json)),
        }
    }
    for (name, json) in &customs {
        body.custom("", name, json);
    }
    body.done()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address<'a> {
    #[serde(borrow)]
    street: Text<'a>,
    #[serde(borrow)]
    city: Text<'a>,
    #[serde(borrow)]
    state: Text<'a>,
    #[serde(borrow)]
    postal_code: Text<'a>,
    #[serde(borrow)]
    country: Text<'a>,
}

fn address(body: &mut Body, json: &str) {
    let it: Address<'_> = serde_json::from_str(json).expect("an address");
    let town = match (it.postal_code.as_deref(), it.city.as_deref()) {
        (Some(code), Some(city)) => Some(format!("{code} {city}")),
        (code, city) => code.or(city).map(str::to_owned),
    };
    let parts = [it.street.as_deref(), town.as_deref(), it.state.as_deref(), it.country.as_deref()];
    let whole: Vec<&str> = parts.into_iter().flatten().collect();
    body.maybe("address", Some(&whole.join(", ")), 255);
    body.maybe("city", it.city.as_deref(), 64);
    body.maybe("region", it.state.as_deref(), 64);
    body.maybe("country", it.country.as_deref(), 64);
    body.maybe("postal_code", it.postal_code.as_deref(), 64);
}
