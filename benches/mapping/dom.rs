//! The usual way: parse to a tree of `serde_json::Value`, build the body as a tree, print it.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::reference::Agents;

/// The body of one record's write; empty for what is no call.
pub(crate) fn body(record: &str, agents: &Agents, now: Timestamp) -> String {
    let event: Value = serde_json::from_str(record).expect("the records are sound");
    let user = event["userId"].as_str().or(event["anonymousId"].as_str()).expect("a user id");
    let at = event["timestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    let at = at.map_or(now, |at| at.min(now));
    let body = match event["type"].as_str() {
        Some("identify") => identify(user, &event, agents),
        Some("track") => track(&event, at),
        Some("page") => page(user, &event, at),
        Some("group") => group(&event),
        _ => return String::new(),
    };
    Value::Object(body).to_string()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().chars().take(255).collect(),
        other => other.to_string().chars().take(255).collect(),
    }
}

/// The leaves of an object under flat names.
fn flat(prefix: &str, object: &Map<String, Value>, into: &mut Map<String, Value>) {
    for (key, value) in object {
        let name = match prefix {
            "" => key.clone(),
            prefix => format!("{prefix}_{key}"),
        };
        match value {
            Value::Null => {}
            Value::Object(inner) => flat(&name, inner, into),
            other => {
                into.insert(name, other.clone());
            }
        }
    }
}

fn track(event: &Value, at: Timestamp) -> Map<String, Value> {
    let mut data = Map::new();
    flat("", event["properties"].as_object().unwrap_or(&Map::new()), &mut data);
    for value in data.values_mut() {
        if let Value::String(_) | Value::Array(_) = value {
            *value = text(value).into();
        }
    }
    let mut body = Map::new();
    body.insert("name".into(), text(&event["event"]).into());
    body.insert("timestamp".into(), at.as_second().into());
    if !data.is_empty() {
        body.insert("data".into(), data.into());
    }
    body
}

fn page(user: &str, event: &Value, at: Timestamp) -> Map<String, Value> {
    let page = &event["context"]["page"];
    let rest = page["url"].as_str().and_then(|url| url.split_once("://")).expect("a whole URL").1;
    let (domain, from_url) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = page["path"].as_str().unwrap_or(from_url);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut body = Map::new();
    body.insert("client_user".into(), user.into());
    body.insert("page_domain".into(), domain.into());
    body.insert("page_path".into(), path.into());
    body.insert("timestamp".into(), at.to_string().into());
    body
}

fn set(body: &mut Map<String, Value>, name: &str, value: Value) {
    let blank = value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty());
    if !blank && !body.contains_key(name) {
        body.insert(name.to_owned(), value);
    }
}

fn dense(value: &Value) -> String {
    text(value).chars().filter(|c| !c.is_whitespace()).collect()
}

/// Adds what is left as custom attributes, which are strings.
fn customs(body: &mut Map<String, Value>, rest: &Map<String, Value>) {
    let mut leaves = Map::new();
    flat("", rest, &mut leaves);
    for (name, value) in leaves {
        let value = text(&value);
        body.insert(name, value.into());
    }
}

fn identify(user: &str, event: &Value, agents: &Agents) -> Map<String, Value> {
    let context = &event["context"];
    let mut traits = event["traits"].as_object().cloned().unwrap_or_default();
    for (key, value) in context["traits"].as_object().into_iter().flatten() {
        traits.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let mut body = Map::new();
    body.insert("custom_id".into(), user.into());
    for (name, spellings) in [
        ("email", &["email"][..]),
        ("first_name", &["firstName", "firstname", "first_name"]),
        ("last_name", &["lastName", "lastname", "last_name"]),
        ("gravatar_url", &["avatar"]),
        ("country", &["country"]),
    ] {
        for value in spellings.iter().filter_map(|spelling| traits.remove(*spelling)) {
            set(&mut body, name, text(&value).into());
        }
    }
    if let Some(phone) = traits.remove("phone") {
        set(&mut body, "phone_number", dense(&phone).into());
    }
    let gender = traits.remove("gender").unwrap_or_default();
    match gender.as_str().map(str::to_lowercase).as_deref() {
        Some("male" | "m" | "man" | "2") => set(&mut body, "gender", 2.into()),
        Some("female" | "f" | "w" | "woman" | "k" | "3") => set(&mut body, "gender", 3.into()),
        Some("unknown" | "u" | "1") => set(&mut body, "gender", 1.into()),
        _ => {}
    }
    if let Some(tags) =
        traits.remove("tags").filter(|tags| tags.as_array().is_some_and(|t| !t.is_empty()))
    {
        set(&mut body, "tags", tags);
    }
    if let Some(address) = traits.get_mut("address").and_then(Value::as_object_mut) {
        for (name, spelling) in [("city", "city"), ("region", "state"), ("country", "country")] {
            set(&mut body, name, address.remove(spelling).unwrap_or_default());
        }
    }
    set(&mut body, "timezone", context["timezone"].clone());
    for name in ["id", "userId", "anonymousId"] {
        traits.remove(name);
    }
    customs(&mut body, &traits);
    around(&mut body, context, agents);
    body
}

fn around(body: &mut Map<String, Value>, context: &Value, agents: &Agents) {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let os = format!("{} {}", word(&context["os"]["name"]), word(&context["os"]["version"]));
    set(body, "os", os.trim().into());
    set(body, "device_name", context["device"]["name"].clone());
    set(body, "device_name", context["device"]["model"].clone());
    set(body, "device_type", word(&context["device"]["type"]).to_lowercase().into());
    let screen = &context["screen"];
    if let (Some(width), Some(height)) = (screen["width"].as_f64(), screen["height"].as_f64()) {
        set(body, "resolution", format!("{width:.0}x{height:.0}").into());
    }
    set(body, "language", context["locale"].clone());
    set(body, "ip_address", context["ip"].clone());
    set(body, "user_agent", context["userAgent"].clone());
    if let Some((family, version)) = context["userAgent"].as_str().and_then(|a| agents.get(a)) {
        set(body, "browser_family", json!(family));
        set(body, "browser_version", json!(version));
    }
    set(body, "current_url", context["page"]["url"].clone());
}

fn group(event: &Value) -> Map<String, Value> {
    let mut traits = event["traits"].as_object().cloned().unwrap_or_default();
    let mut body = Map::new();
    body.insert("custom_id".into(), event["groupId"].clone());
    for name in ["name", "email", "description"] {
        set(&mut body, name, traits.remove(name).unwrap_or_default());
    }
    if let Some(phone) = traits.remove("phone") {
        set(&mut body, "phone_numbers", json!([dense(&phone)]));
    }
    set(&mut body, "size", traits.remove("employees").unwrap_or_default());
    traits.remove("size");
    if let Some(address) = traits.remove("address") {
        let part = |name: &str| address[name].as_str().map(Cow::Borrowed);
        let town = match (part("postalCode"), part("city")) {
            (Some(code), Some(city)) => Some(format!("{code} {city}").into()),
            (code, city) => code.or(city),
        };
        let parts = [part("street"), town, part("state"), part("country")];
        let whole: Vec<_> = parts.into_iter().flatten().collect();
        set(&mut body, "address", whole.join(", ").into());
        for (name, spelling) in [
            ("city", "city"),
            ("region", "state"),
            ("country", "country"),
            ("postal_code", "postalCode"),
        ] {
            set(&mut body, name, address[spelling].clone());
        }
    }
    customs(&mut body, &traits);
    body
}
