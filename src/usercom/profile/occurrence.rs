//! Track and page: what happened, flat and within User.com's limits.

use indexmap::IndexMap;
use jiff::Timestamp;
use url::Url;

use super::leaves::{self, Leaves, text};
use super::limits::{TEXT, crop_noting};
use super::person::{named, standard};
use super::{CallFault, Notes};
use crate::call::{Call, Json};
use crate::plan::{Field, FieldClass, FieldSet, Op, OwnId};

/// Up to so many properties are compared by name one by one; more are hashed.
const FEW: usize = 32;

/// The domain of a page that has a path and no URL, and no app in its context: a page of a server
/// log without a host. Nothing is guessed from the referrer, which is another page's address.
const NO_DOMAIN: &str = "unknown";

/// The event occurrence a track stands for.
pub(super) fn track(
    call: &Call<'_>,
    user: OwnId,
    now: Timestamp,
    notes: &mut Notes,
) -> Result<Op, CallFault> {
    let name = call.name.as_deref().map(str::trim).unwrap_or_default();
    if name.is_empty() {
        return Err(CallFault::new("no_event", "the track call has no `event`"));
    }
    Ok(Op::Track {
        user,
        name: crop_noting(name, TEXT, "event", notes).trim_end().into(),
        at: Some(moment(call, now)),
        data: data(call, notes),
    })
}

/// When it happened. Nothing happens in the future.
fn moment(call: &Call<'_>, now: Timestamp) -> Timestamp {
    call.timestamp.map_or(now, |at| at.min(now))
}

/// The properties: objects flattened with `_`, lists as JSON text, texts cut at their limit. Of
/// equal names the last value stands in the first one's place.
fn data(call: &Call<'_>, notes: &mut Notes) -> FieldSet {
    let leaves = leaves::flat(&call.fields);
    let mut data = FieldSet(Vec::with_capacity(leaves.len()));
    if leaves.len() <= FEW {
        for (name, json) in leaves {
            standard(&mut data, &name, value(&name, json, notes));
        }
        return data;
    }
    let mut values: IndexMap<_, _> = IndexMap::with_capacity(leaves.len());
    for (name, json) in leaves {
        let value = value(&name, json, notes);
        values.insert(name, value);
    }
    data.0.extend(values.into_iter().map(|(name, json)| Field {
        name: name.into(),
        class: FieldClass::Standard,
        json,
    }));
    data
}

fn value(name: &str, json: &str, notes: &mut Notes) -> Box<str> {
    match leaves::plain(json) {
        Some(text) if text.len() <= TEXT => return json.into(),
        _ => {}
    }
    match text(json) {
        // Numbers and booleans keep their type.
        Some(_) if !json.starts_with('"') => json.into(),
        value => {
            let value = value.as_deref().unwrap_or(json);
            Json::string(crop_noting(value, TEXT, name, notes)).into_text().into()
        }
    }
}

/// The page view a page stands for.
pub(super) fn page(call: &Call<'_>, user: OwnId, now: Timestamp) -> Result<Op, CallFault> {
    let mut context = Leaves::below(&call.context, &["page", "url", "app"]);
    let in_context = |leaves: &mut Leaves<'_>, name: &str| {
        let found = leaves.take(&[name]).and_then(text);
        found.map(|found| found.trim().to_owned())
    };
    let url = in_context(&mut context, "page.url")
        .or_else(|| named(&call.fields, &["url"]))
        .or_else(|| in_context(&mut context, "url"));
    let path = in_context(&mut context, "page.path").or_else(|| named(&call.fields, &["path"]));
    let (domain, url_path) = match url.as_deref() {
        Some(url) => split(url),
        None => (None, None),
    };
    let path = match path.as_deref().map(split) {
        Some((_, Some(path))) => Some(path),
        _ => url_path,
    };
    if domain.is_none() && path.is_none() {
        return Err(CallFault::new("no_page", "the page call has neither a URL nor a path"));
    }
    // A screen's place is its app: by bundle, which is unique, else by name.
    let domain = domain.or_else(|| in_context(&mut context, "app.namespace"));
    let domain = domain.or_else(|| in_context(&mut context, "app.name"));
    let domain = domain.filter(|domain| !domain.is_empty());
    Ok(Op::Page {
        user,
        domain: domain.as_deref().unwrap_or(NO_DOMAIN).into(),
        path: path.as_deref().unwrap_or("/").into(),
        at: Some(moment(call, now)),
    })
}

/// Host and path of a web address in which nothing needs to be normalised, which is most of them.
fn plain_address(address: &str) -> Option<(&str, &str)> {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"))?;
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let (host, path) = rest.split_at(rest.find('/')?);
    // A last label of digits makes a number of it, and `xn--` is looked into.
    let last = host.rsplit('.').next()?;
    let named = !last.is_empty() && last.bytes().all(|b| b.is_ascii_lowercase());
    let plain_host = named
        && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        && !host.contains("--")
        && !host.contains("..")
        && !host.starts_with('.');
    let plain_path = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_~.".contains(&b))
        && !path.contains("/.");
    (plain_host && plain_path).then_some((host, path))
}

/// Host and path of an address: a whole URL, one without a scheme, or a bare path.
fn split(address: &str) -> (Option<String>, Option<String>) {
    if let Some((host, path)) = plain_address(address) {
        return (Some(host.to_owned()), Some(path.to_owned()));
    }
    if address.contains("://")
        && let Ok(url) = Url::parse(address)
    {
        return (url.host_str().map(str::to_owned), Some(url.path().to_owned()));
    }
    if let Some(rest) = address.strip_prefix("//") {
        return split(&format!("https://{rest}"));
    }
    let path = address.split(['?', '#']).next().unwrap_or_default();
    if path.starts_with('/') {
        return (None, Some(path.to_owned()));
    }
    let first = path.split('/').next().unwrap_or_default();
    if first.contains('.')
        && let Ok(url) = Url::parse(&format!("https://{address}"))
    {
        return (url.host_str().map(str::to_owned), Some(url.path().to_owned()));
    }
    ((None), (!path.is_empty()).then(|| format!("/{path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_agrees_with_the_url_parser() {
        // Whatever address is read without the URL parser has the host and path it would find.
        let hosts =
            ["shop.example.com", "localhost", "a-b.c", "1.2.3.4", "0x7f", "a.0x1", "xn--a.b"];
        let paths =
            ["/", "/a/b.html", "/a/./b", "/a/../b", "/~x_-y", "/a//b", "/%20", "/ü", "", "/."];
        let mut short = 0;
        for (host, path) in hosts.iter().flat_map(|h| paths.iter().map(move |p| (h, p))) {
            for tail in ["", "?q=/x", "#f/g"] {
                let address = format!("https://{host}{path}{tail}");
                if let Some((host, path)) = plain_address(&address) {
                    let url = Url::parse(&address).unwrap();
                    assert_eq!((Some(host), path), (url.host_str(), url.path()), "{address}");
                    short += 1;
                }
            }
        }
        assert!(short > 20);
    }

    #[test]
    fn many_properties_stay_unique() {
        // Flat names stay unique and in order, few or many.
        for count in [3, FEW, 4 * FEW] {
            let mut call = Call::new(crate::call::CallKind::Track);
            call.fields.push(("a".into(), Json::trusted(r#"{"b":0}"#)));
            call.fields.extend((0..count).map(|n| (format!("k{n}").into(), Json::trusted("1"))));
            call.fields.push(("a_b".into(), Json::trusted("2")));
            let data = data(&call, &mut Notes::default());
            assert_eq!(data.0.len(), count + 1);
            assert_eq!((&*data.0[0].name, &*data.0[0].json), ("a_b", "2"));
        }
    }
}
