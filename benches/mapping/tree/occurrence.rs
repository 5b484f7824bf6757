//! Track and page: what happened, flat and within User.com's limits.

use std::borrow::Cow;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value};
use url::Url;

use super::leaves::{Leaves, MAX_DEPTH};
use super::person::named;
use super::spellings::Spellings;
use super::table::Call;
use super::text::{TEXT, cropped, shown, trimmed, word};
use super::{Fault, Notes};

/// The body of a track.
pub(super) fn track(
    call: Call,
    now: Timestamp,
    notes: &mut Notes,
) -> Result<Map<String, Value>, Fault> {
    let at = moment(&call, now);
    let name = call.name.map(trimmed).filter(|name| !name.is_empty());
    let name = trimmed(cropped(name.ok_or("the track has no event")?, TEXT, "event", notes));
    let mut data = Map::new();
    flatten(call.fields, 0, &mut String::new(), &mut data, notes);
    let mut body = Map::new();
    body.insert("name".to_owned(), name.into());
    body.insert("timestamp".to_owned(), at.as_second().into());
    if !data.is_empty() {
        body.insert("data".to_owned(), data.into());
    }
    Ok(body)
}

/// When it happened. Nothing happens in the future.
fn moment(call: &Call, now: Timestamp) -> Timestamp {
    call.timestamp.map_or(now, |at| at.min(now))
}

/// The properties: objects flattened with `_`, lists as JSON text, texts cut at their limit. Of
/// equal names the last value counts.
fn flatten(
    object: Map<String, Value>,
    depth: usize,
    path: &mut String,
    into: &mut Map<String, Value>,
    notes: &mut Notes,
) {
    for (name, value) in object {
        let key = name.trim();
        if value.is_null() || (key.is_empty() && depth == 0) {
            continue;
        }
        match value {
            Value::Object(inner) if depth < MAX_DEPTH => {
                let outside = path.len();
                path.extend([key, "_"]);
                flatten(inner, depth + 1, path, into, notes);
                path.truncate(outside);
            }
            value => {
                let name = match depth {
                    0 => trimmed(name),
                    _ => [path, key].concat(),
                };
                let value = match value {
                    // Numbers and booleans keep their type.
                    Value::Number(_) | Value::Bool(_) => value,
                    other => cropped(shown(other), TEXT, &name, notes).into(),
                };
                into.insert(name, value);
            }
        }
    }
}

/// Where a page may be found in the context.
#[derive(Clone, Copy)]
enum Part {
    PageUrl,
    Url,
    PagePath,
    AppNamespace,
    AppName,
}

impl From<Part> for usize {
    fn from(part: Part) -> Self {
        part as Self
    }
}

static PARTS: LazyLock<Spellings> = LazyLock::new(|| {
    Spellings::new(&[
        (Part::PageUrl, &["page.url"]),
        (Part::Url, &["url"]),
        (Part::PagePath, &["page.path"]),
        (Part::AppNamespace, &["app.namespace"]),
        (Part::AppName, &["app.name"]),
    ])
});

/// The body of a page.
pub(super) fn page(user: String, call: Call, now: Timestamp) -> Result<Map<String, Value>, Fault> {
    let at = moment(&call, now);
    let mut context = Leaves::<{ Part::AppName as usize + 1 }>::among(call.context, &PARTS);
    let mut part = |part: Part| context.take(part).and_then(word);
    let property = |name| named(&call.fields, &[name]);
    let url = part(Part::PageUrl).or_else(|| property("url")).or_else(|| part(Part::Url));
    let path = part(Part::PagePath).or_else(|| property("path"));
    let (domain, url_path) = url.as_deref().map(split).unwrap_or_default();
    let path = path.as_deref().and_then(|path| split(path).1).or(url_path);
    if domain.is_none() && path.is_none() {
        return Err("the page has neither a URL nor a path");
    }
    let domain = domain.map(Cow::into_owned);
    let domain = domain.or_else(|| part(Part::AppNamespace)).or_else(|| part(Part::AppName));
    let domain = domain.filter(|domain| !domain.is_empty());
    let mut body = Map::new();
    body.insert("client_user".to_owned(), user.into());
    body.insert("page_domain".to_owned(), domain.map_or("unknown".into(), Value::from));
    body.insert("page_path".to_owned(), path.map_or("/".into(), Value::from));
    body.insert("timestamp".to_owned(), at.to_string().into());
    Ok(body)
}

type Parts<'a> = (Option<Cow<'a, str>>, Option<Cow<'a, str>>);

/// Host and path of an address: a whole URL, one without a scheme, or a bare path.
fn split(address: &str) -> Parts<'_> {
    if let Some((host, path)) = plain(address) {
        return (Some(host.into()), Some(path.into()));
    }
    if address.contains("://")
        && let Ok(url) = Url::parse(address)
    {
        return parts(&url);
    }
    if address.starts_with("//")
        && let Ok(url) = Url::parse(&format!("https:{address}"))
    {
        return parts(&url);
    }
    let path = address.split(['?', '#']).next().unwrap_or_default();
    if path.starts_with('/') {
        return (None, Some(path.into()));
    }
    let first = path.split('/').next().unwrap_or_default();
    if first.contains('.')
        && let Ok(url) = Url::parse(&format!("https://{address}"))
    {
        return parts(&url);
    }
    (None, (!path.is_empty()).then(|| format!("/{path}").into()))
}

/// Host and path of a web address in which there is nothing to normalise.
fn plain(address: &str) -> Option<(&str, &str)> {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"))?;
    let rest = rest.split(['?', '#']).next()?;
    let (host, path) = rest.split_at(rest.find('/')?);
    // A last label of digits makes a number of the host, and `xn--` is looked into.
    let is_name = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase());
    let is_host = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    let is_path = |b: u8| b.is_ascii_alphanumeric() || b"/-_~.".contains(&b);
    let is_plain = host.rsplit('.').next().is_some_and(is_name)
        && host.bytes().all(is_host)
        && !host.contains("--")
        && !host.contains("..")
        && !host.starts_with('.')
        && path.bytes().all(is_path)
        && !path.contains("/.");
    is_plain.then_some((host, path))
}

fn parts(url: &Url) -> Parts<'static> {
    let host = url.host_str().map(|host| Cow::Owned(host.to_owned()));
    (host, Some(Cow::Owned(url.path().to_owned())))
}
