//! Track and page: what happened, flat and within User.com's limits.

use jiff::Timestamp;
use url::Url;

use super::leaves::{Leaves, text};
use super::limits::{TEXT, crop_noting};
use super::person::{named, standard};
use super::{CallFault, Notes};
use crate::call::{Call, Json};
use crate::plan::{FieldSet, Op, OwnId};

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
        return Err(CallFault::new("no_event_name", "the track call has no `event`"));
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

/// The properties: objects flattened with `_`, lists as JSON text, texts cut at their limit.
fn data(call: &Call<'_>, notes: &mut Notes) -> FieldSet {
    let mut data = FieldSet::default();
    for leaf in Leaves::of(&call.fields).rest() {
        let value = match text(leaf.json) {
            // Numbers and booleans keep their type.
            Some(_) if !leaf.json.starts_with('"') => leaf.json.to_owned(),
            value => {
                let value = value.as_deref().unwrap_or(leaf.json);
                let value = crop_noting(value, TEXT, &leaf.flat, notes);
                Json::string(value).as_str().to_owned()
            }
        };
        standard(&mut data, &leaf.flat, value);
    }
    data
}

/// The page view a page stands for.
pub(super) fn page(call: &Call<'_>, user: OwnId, now: Timestamp) -> Result<Op, CallFault> {
    let mut context = Leaves::of(&call.context);
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

/// Host and path of an address: a whole URL, one without a scheme, or a bare path.
fn split(address: &str) -> (Option<String>, Option<String>) {
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
