//! Checks sinks: inputs, the base URL, preset and mapping.

use std::collections::{HashMap, HashSet};

use secrecy::ExposeSecret;

use super::{FaultCollector, KnownNames, is_empty_list};
use crate::config::fault::{ConfigPath, Target};
use crate::config::sink::{AttributeTypes, BufferKind, UnknownAttributes, UsercomSink, WhenFull};
use crate::config::{BaseUrl, BaseUrlError};

/// Faults of one sink. `path` is `sinks.NAME`.
pub(super) fn check(
    faults: &mut FaultCollector<'_>,
    path: &ConfigPath,
    sink: &UsercomSink,
    sources: &KnownNames<'_>,
    sinks: &KnownNames<'_>,
) {
    inputs(faults, path, sink, sources, sinks);
    address(faults, path, sink);
    if sink.api_key.expose_secret().trim().is_empty() {
        let message = "the api key is empty";
        let help = "App settings > Advanced has it; check that the variable or file is not empty";
        faults.at("E0317", path.key("api_key"), Target::Value, message, help);
    } else if !is_header_text(sink.api_key.expose_secret()) {
        let message = "the api key has characters that no api key has";
        let help =
            "a key is visible ASCII text without spaces; check that it was copied completely";
        faults.at("E0317", path.key("api_key"), Target::Value, message, help);
    }
    let mapped =
        faults.has_or_means(path, "mapping") && !is_empty_list(faults, &path.key("mapping"));
    if !mapped && !faults.has_or_means(path, "preset") {
        let message = format!("`{path}` has neither a preset nor a mapping");
        let help =
            "write `preset = \"segment\"` for records in Segment's shape, or rules: `[[…mapping]]`";
        faults.at("E0315", path.clone(), Target::Key, message, help);
    }
    buffer(faults, path, sink);
    attributes(faults, &path.key("attributes"), &sink.attributes);
    attributes(faults, &path.key("company_attributes"), &sink.company_attributes);
    idle_types(faults, path, sink);
}

/// A key is sent in a header: it must be one visible word.
fn is_header_text(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Inputs are sources only, and nothing feeds a source, so they cannot form a cycle.
fn inputs(
    faults: &mut FaultCollector<'_>,
    path: &ConfigPath,
    sink: &UsercomSink,
    sources: &KnownNames<'_>,
    sinks: &KnownNames<'_>,
) {
    let mut seen = HashSet::new();
    for (index, input) in sink.inputs.iter().enumerate() {
        let path = path.key("inputs").index(index);
        if !seen.insert(input.as_str()) {
            let message = format!("input `{input}` is listed twice");
            faults.at("E0303", path, Target::Value, message, "leave one of them out");
        } else if sources.contains(input) {
            continue;
        } else if sinks.contains(input) {
            let message = format!("input `{input}` is a sink");
            let help = "a sink takes records from sources only; name the source that sink reads";
            faults.at("E0302", path, Target::Value, message, help);
        } else {
            let message = format!("unknown input `{input}`");
            let help = faults.instead(input, sources, "the sources are");
            faults.at("E0301", path, Target::Value, message, help);
        }
    }
}

fn address(faults: &mut FaultCollector<'_>, path: &ConfigPath, sink: &UsercomSink) {
    // Presence is read from the file: a value with a fault of its own is still present.
    let app = faults.has(&path.key("app"));
    let endpoint = faults.has(&path.key("endpoint"));
    let meant = faults.has_or_means(path, "app") || faults.has_or_means(path, "endpoint");
    if app && endpoint {
        let message = "both `app` and `endpoint` are given";
        let help = "`app = \"acme\"` stands for `https://acme.user.com/api/public/`; keep one";
        faults.at("E0307", path.key("endpoint"), Target::Key, message, help);
    } else if !meant {
        let message = format!("`{path}` has neither `app` nor `endpoint`");
        let help = "write `app = \"acme\"` for https://acme.user.com, or `endpoint = \"https://…/api/public/\"`";
        faults.at("E0306", path.clone(), Target::Key, message, help);
    }
    if let Some(label) = &sink.app
        && !is_label(label)
    {
        let message = format!("`{label}` is not the name of an app");
        let help = match label.contains(['.', '/', ':']) {
            true => {
                "only the subdomain: `acme` for https://acme.user.com; for another host use `endpoint`"
            }
            false => "lower case letters, digits and hyphens: `acme` for https://acme.user.com",
        };
        faults.at("E0309", path.key("app"), Target::Value, message, help);
    }
    if let Some(endpoint) = &sink.endpoint {
        check_endpoint(faults, path.key("endpoint"), endpoint);
    }
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn check_endpoint(faults: &mut FaultCollector<'_>, path: ConfigPath, endpoint: &str) {
    let (message, help) = match BaseUrl::parse(endpoint) {
        Ok(url) if url.is_unencrypted() => {
            let message = "the API key would travel unencrypted";
            faults.at("W0303", path, Target::Value, message, "use https");
            return;
        }
        Ok(_) => return,
        Err(error) => (
            error.to_string(),
            match error {
                BaseUrlError::Syntax(_) | BaseUrlError::Scheme(_) => {
                    "write the whole base URL: `https://acme.user.com/api/public/`"
                }
                BaseUrlError::Credentials => {
                    "the API key is the only credential; write it as `api_key`"
                }
                BaseUrlError::QueryOrFragment => {
                    "it is a base that paths are added to, and ends in `/`"
                }
            },
        ),
    };
    faults.at("E0308", path, Target::Value, message, help);
}

fn buffer(faults: &mut FaultCollector<'_>, path: &ConfigPath, sink: &UsercomSink) {
    let path = path.key("buffer");
    let idle = match sink.buffer.kind {
        BufferKind::Memory => "max_size",
        BufferKind::Disk => "max_events",
    };
    if faults.has(&path.key(idle)) {
        let (is, other) = match sink.buffer.kind {
            BufferKind::Memory => ("memory", "max_events"),
            BufferKind::Disk => ("disk", "max_size"),
        };
        let message = format!("`{idle}` has no effect on a {is} buffer");
        let help = format!("a {is} buffer is bounded by `{other}`");
        faults.at("W0302", path.key(idle), Target::Key, message, help);
    }
    if sink.buffer.when_full == WhenFull::DropNewest && sink.request.rate_limit_num.is_some() {
        let message = "records above the rate limit will be dropped once the buffer is full";
        let help = "`when_full = \"block\"` makes the source wait instead";
        faults.at("W0304", path.key("when_full"), Target::Value, message, help);
    }
}

/// The most characters of an attribute's name.
const MAX_ATTRIBUTE_NAME_CHARS: usize = 32;

/// Names of attributes, compared as User.com does.
fn attributes(faults: &mut FaultCollector<'_>, path: &ConfigPath, types: &AttributeTypes) {
    let mut seen = HashMap::new();
    for name in types.keys() {
        let key = path.key(name.as_str());
        let std = name.trim().to_lowercase().replace(char::is_whitespace, "_");
        if std.is_empty() || name.chars().count() > MAX_ATTRIBUTE_NAME_CHARS {
            let message = format!("`{name}` is not the name of an attribute");
            let help = "a name has 1 to 32 characters; longer ones are cut to that length";
            faults.at("E0323", key, Target::Key, message, help);
        } else if let Some(other) = seen.insert(std, name) {
            let message = format!("`{name}` and `{other}` are one attribute to User.com");
            let help = "names are compared without case, and with blanks as `_`; keep one";
            faults.at("E0323", key, Target::Key, message, help);
        }
    }
}

/// Types of attributes that are never created.
fn idle_types(faults: &mut FaultCollector<'_>, path: &ConfigPath, sink: &UsercomSink) {
    if sink.users.unknown_attributes == UnknownAttributes::Create {
        return;
    }
    for key in ["attributes", "company_attributes"] {
        if faults.has(&path.key(key)) {
            let message = format!("`{key}` has no effect where attributes are not created");
            let help = "it names the types of new attributes: set `users.unknown_attributes = \"create\"`, or leave it out";
            faults.at("W0302", path.key(key), Target::Key, message, help);
        }
    }
}
