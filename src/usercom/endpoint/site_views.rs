//! Page views: sends one, reads a user's history.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;
use url::Url;

use super::events::{UserRef, offset, written_time};
use super::{Body, get, needed, segment, write};
use crate::deliver::{Idempotency, Method, Need, Request};

/// A page view as it is sent.
#[derive(Debug, Clone, Copy)]
pub(in crate::usercom) struct View<'a> {
    /// The host of the page.
    pub(in crate::usercom) domain: &'a str,
    /// The path of the page.
    pub(in crate::usercom) path: &'a str,
    /// The time of the view.
    pub(in crate::usercom) at: Timestamp,
}

/// How a page view names its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::usercom) enum Viewer<'a> {
    /// By User.com's key.
    Key(Cow<'a, str>),
    /// By the customer's own id, in a field.
    ExternalUserId(&'static str, &'a str),
    /// By User.com's number.
    Number(u64),
}

/// The body of a page view.
pub(in crate::usercom) fn body(viewer: &Viewer<'_>, view: View<'_>) -> String {
    let body = match viewer {
        Viewer::Key(key) => Body::new().text("client_user", key),
        Viewer::ExternalUserId(field, id) => Body::new().text(field, id),
        Viewer::Number(id) => Body::new().number("user_id", id),
    };
    body.text("page_domain", view.domain)
        .text("page_path", view.path)
        .moment("timestamp", view.at)
        .done()
}

/// `POST site-views/`.
pub(in crate::usercom) fn view(viewer: &Viewer<'_>, view: View<'_>) -> Request {
    let body = body(viewer, view);
    write(Method::Post, "site-views/", "site-views/".into(), body, Idempotency::NonIdempotent)
}

/// A user's page views.
pub(in crate::usercom) fn history(whose: UserRef<'_>) -> Request {
    let request = match whose {
        UserRef::ExternalUserId(id) => get(
            "users-by-id/:id/ping_hits/",
            format!("users-by-id/{}/ping_hits/", segment(id).unwrap_or_default()),
        ),
        UserRef::Number(id) => get("users/:id/ping_hits/", format!("users/{id}/ping_hits/")),
    };
    needed(request, Need::Optional)
}

/// The zone offset under which an entry of the history is the page view that was sent, see
/// [`offset`]; `None` if it is another one. User.com may store the time in whole seconds.
pub(in crate::usercom) fn same_at(entry: &Value, sent: View<'_>) -> Option<i64> {
    let offset = offset(written_time(entry), |seen| {
        let millis = |at: Timestamp| at.subsec_nanosecond() / 1_000_000;
        let same = seen.subsec_nanosecond() == 0 || millis(seen) == millis(sent.at);
        same.then(|| seen.as_second() - sent.at.as_second())
    })?;
    let path = match (&entry["page_path"], &entry["path"], &entry["url"]) {
        (Value::String(path), ..) | (_, Value::String(path), _) => Some(path.clone()),
        (_, _, Value::String(url)) => Some(path_of(url)),
        _ => None,
    };
    path.is_none_or(|path| path == sent.path.replace('\0', "")).then_some(offset)
}

fn path_of(url: &str) -> String {
    let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    Url::parse(&whole).map_or_else(|_| url.to_owned(), |url| url.path().to_owned())
}
