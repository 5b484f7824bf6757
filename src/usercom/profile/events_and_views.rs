//! Track and page calls: events and page views, flattened and within User.com's limits.

use std::borrow::Cow;
use std::sync::LazyLock;

use jiff::Timestamp;
use url::Url;

use super::aliases::AliasTable;
use super::flattened::{self, FlattenedTraits, text};
use super::limits::{
    MAX_HOST_LEN, MAX_PATH_LEN, MAX_TEXT_LEN, MAX_VALUES, TOO_MANY_VALUES, is_number,
    json_without_nuls, number, truncate_noting, without_nuls,
};
use super::person::{TOO_LONG, named, standard};
use super::{PlanError, PlanWarnings, Settings};
use crate::call::{Call, Json, NameIndex, Object, for_each_entry, trimmed};
use crate::config::account::{FutureTimes, PageDomain};
use crate::schedule::{ExternalUserId, FieldClass, Op, PackedFields, UserKeys};

/// The domain of a page that has a path, but no URL and no app in its context: a page of a server
/// log without a host. The referrer is not used, because it is the address of another page.
const NO_DOMAIN: &str = "unknown";

/// The event of a track call.
pub(super) fn track(
    call: &Call<'_>,
    user: ExternalUserId,
    keys: UserKeys,
    settings: &Settings,
    now: Timestamp,
    notes: &mut PlanWarnings,
) -> Result<Op, PlanError> {
    let name = without_nuls(call.name.as_deref().unwrap_or_default());
    let name = trimmed(&name);
    if name.is_empty() {
        return Err(PlanError::new("no_event", "the track call has no `event`"));
    }
    Ok(Op::Track {
        user,
        name: truncate_noting(name, MAX_TEXT_LEN, "event", notes).trim_end().into(),
        at: Some(moment(call, settings, now)?),
        data: data(call, notes),
        keys,
    })
}

/// The time of the event. A time in the future is not possible, unless the account keeps it, and
/// neither is one before 1970, where the time of events begins: no other time may replace it.
fn moment(call: &Call<'_>, settings: &Settings, now: Timestamp) -> Result<Timestamp, PlanError> {
    match call.timestamp {
        Some(at) if at < Timestamp::UNIX_EPOCH => {
            let reason = format!("`timestamp` is {at}, which is before 1970");
            Err(PlanError::new("timestamp_before_1970", reason))
        }
        Some(at) if settings.account.future_times == FutureTimes::Kept => Ok(at),
        Some(at) => Ok(at.min(now)),
        None => Ok(now),
    }
}

/// The properties: objects flattened with `_`, lists as JSON text, strings truncated at their
/// limit. Of equal names the last value is used, at the position of the first one.
fn data(call: &Call<'_>, notes: &mut PlanWarnings) -> PackedFields {
    let mut data = EventData {
        set: PackedFields::with_capacity(16, 320),
        names: NameIndex::default(),
        path: String::new(),
        notes,
    };
    match &call.fields {
        Object::Raw(text) => data.open(text, 0),
        Object::Parsed(fields) => {
            for (name, json) in fields.iter().filter(|(_, json)| !json.is_null()) {
                data.add(name, json.as_str(), 0);
            }
        }
    }
    data.set
}

/// The properties under construction.
struct EventData<'n> {
    set: PackedFields,
    names: NameIndex,
    /// The keys of the enclosing objects, each followed by `_`.
    path: String,
    notes: &'n mut PlanWarnings,
}

impl EventData<'_> {
    fn open(&mut self, object: &str, depth: usize) {
        for_each_entry(object, |name, json| self.add(&name, json, depth));
    }

    fn add(&mut self, name: &str, json: &str, depth: usize) {
        let key = trimmed(name);
        if key.is_empty() && depth == 0 {
            return;
        }
        if json.starts_with('{') && depth < flattened::MAX_DEPTH {
            let outside = self.path.len();
            self.path.extend([key, "_"]);
            self.open(json, depth + 1);
            self.path.truncate(outside);
        } else if depth == 0 {
            self.put(key, json);
        } else {
            let name = [&*self.path, key].concat();
            self.put(&name, json);
        }
    }

    fn put(&mut self, name: &str, json: &str) {
        let name = without_nuls(name);
        let name = truncate_noting(&name, MAX_TEXT_LEN, "properties", self.notes);
        if self.set.len() >= MAX_VALUES {
            return self.notes.dropped("properties", TOO_MANY_VALUES);
        }
        let Some(value) = value(name, json, self.notes) else {
            return self.notes.dropped(name, "a number that no server accepts");
        };
        match self.names.get_or_insert(name, |place| self.set.name(place)) {
            Some(place) => self.set.replace(place, FieldClass::Standard, &value),
            None => standard(&mut self.set, name, &value),
        }
    }
}

/// A property's value as it is sent; `None` for a number that no server accepts.
fn value<'j>(name: &str, json: &'j str, notes: &mut PlanWarnings) -> Option<Cow<'j, str>> {
    Some(match json.as_bytes().first() {
        // A string without escapes is as long as its JSON without the quotes.
        Some(b'"') if json.len() <= MAX_TEXT_LEN + 2 && flattened::plain(json).is_some() => {
            json.into()
        }
        Some(b'"' | b'[' | b'{') => {
            let json = json_without_nuls(json);
            let value = text(&json).unwrap_or(Cow::Borrowed(&*json));
            Json::string(truncate_noting(&value, MAX_TEXT_LEN, name, notes))
                .into_text()
                .into_owned()
                .into()
        }
        // Numbers and booleans keep their type.
        _ if is_number(json) => number(json)?,
        _ => json.into(),
    })
}

/// Where the context may have a page.
#[derive(Debug, Clone, Copy)]
enum EventPart {
    PageUrl,
    Url,
    PagePath,
    AppNamespace,
    AppName,
}

impl From<EventPart> for usize {
    fn from(part: EventPart) -> Self {
        part as Self
    }
}

static PARTS: LazyLock<AliasTable> = LazyLock::new(|| {
    AliasTable::new(&[
        (EventPart::PageUrl, &["page.url"]),
        (EventPart::Url, &["url"]),
        (EventPart::PagePath, &["page.path"]),
        (EventPart::AppNamespace, &["app.namespace"]),
        (EventPart::AppName, &["app.name"]),
    ])
});

/// The page view of a page call.
pub(super) fn page(
    call: &Call<'_>,
    user: ExternalUserId,
    keys: UserKeys,
    settings: &Settings,
    now: Timestamp,
    notes: &mut PlanWarnings,
) -> Result<Op, PlanError> {
    let context =
        FlattenedTraits::<{ EventPart::AppName as usize + 1 }>::among(&call.context, &PARTS);
    let word = |part: EventPart| {
        Some(match context.get(part).and_then(text)? {
            Cow::Borrowed(word) => Cow::Borrowed(trimmed(word)),
            Cow::Owned(word) => Cow::Owned(word.trim().to_owned()),
        })
    };
    let property = |name| named(&call.fields, &[name]).map(Cow::Owned);
    let url = word(EventPart::PageUrl).or_else(|| property("url")).or_else(|| word(EventPart::Url));
    let path = word(EventPart::PagePath).or_else(|| property("path"));
    let (domain, url_path) = url.as_deref().map(split).unwrap_or_default();
    let path = path.as_deref().and_then(|path| split(path).1).or(url_path);
    // A page without an address is identified by its name, as a screen is.
    let path = path.or_else(|| named_path(call).filter(|_| domain.is_none()));
    if domain.is_none() && path.is_none() {
        return Err(PlanError::new(
            "no_page",
            "the page call has neither a URL nor a path nor a name",
        ));
    }
    // The domain of a screen is its app: the bundle, which is unique, otherwise the name.
    let domain =
        domain.or_else(|| word(EventPart::AppNamespace)).or_else(|| word(EventPart::AppName));
    let domain = domain.map(|domain| without_nuls(&domain).into_owned());
    let domain = domain.filter(|domain| !domain.is_empty());
    // A truncated host would be another host.
    let domain = domain.filter(|domain| {
        let fits = domain.chars().count() <= MAX_HOST_LEN;
        if !fits {
            notes.dropped("page_domain", TOO_LONG);
        }
        fits
    });
    let path = without_nuls(path.as_deref().unwrap_or("/"));
    let domain = domain.as_deref().unwrap_or(NO_DOMAIN);
    let domain = match settings.account.page_domain {
        PageDomain::Host => domain.into(),
        PageDomain::Url => whole_url(url.as_deref(), domain, &path),
    };
    Ok(Op::Page {
        user,
        domain,
        path: truncate_noting(&path, MAX_PATH_LEN, "page_path", notes).into(),
        at: Some(moment(call, settings, now)?),
        keys,
    })
}

/// The URL of a page: as it was given, if it is a whole one that is not too long.
fn whole_url(given: Option<&str>, domain: &str, path: &str) -> Box<str> {
    let is_whole = |url: &&str| {
        let is_web = url.starts_with("https://") || url.starts_with("http://");
        is_web && !url.contains('\0') && url.chars().count() <= MAX_PATH_LEN
    };
    match given.filter(is_whole) {
        Some(url) => url.into(),
        None => format!("https://{domain}{path}").into(),
    }
}

/// The path of a page that has a name but no address.
fn named_path(call: &Call<'_>) -> Option<Cow<'static, str>> {
    let mut names = [&call.name, &call.category].into_iter().flatten().map(|name| trimmed(name));
    let name = names.find(|name| !name.is_empty())?;
    // These characters would end the path.
    let name = name.trim_start_matches('/').replace('?', "%3F").replace('#', "%23");
    Some(format!("/{name}").into())
}

/// Host and path of a web address that needs no normalization, which is true of most.
fn plain_address(address: &str) -> Option<(&str, &str)> {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"))?;
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let (host, path) = rest.split_at(rest.find('/')?);
    // A last label of digits makes the host a number, and `xn--` has to be decoded.
    let last = host.rsplit('.').next()?;
    let named = !last.is_empty() && last.bytes().all(|b| b.is_ascii_lowercase());
    let plain_host = named
        && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        && !has_pair(host, *b"--")
        && !has_pair(host, *b"..")
        && !host.starts_with('.');
    let plain_path = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_~.".contains(&b))
        && !has_pair(path, *b"/.");
    (plain_host && plain_path).then_some((host, path))
}

/// Whether two bytes are adjacent. For strings this short, a search takes longer to set up than
/// this comparison.
fn has_pair(text: &str, pair: [u8; 2]) -> bool {
    text.as_bytes().array_windows().any(|two| *two == pair)
}

/// A host and a path, where there is one.
type HostAndPath<'a> = (Option<Cow<'a, str>>, Option<Cow<'a, str>>);

/// Host and path of an address: a whole URL, one without a scheme, or a bare path.
fn split(address: &str) -> HostAndPath<'_> {
    if let Some((host, path)) = plain_address(address) {
        return (Some(host.into()), Some(path.into()));
    }
    if address.contains("://")
        && let Ok(url) = Url::parse(address)
    {
        return parts(&url);
    }
    if let Some(parts) = odd_address(address) {
        return parts;
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

/// Host and path of a web address that is invalid because of its host: `xn--` that is not punycode,
/// or a character that no host has. The host is used as it is written, in lower case, if it could
/// be a host at all.
fn odd_address(address: &str) -> Option<HostAndPath<'_>> {
    let (scheme, rest) = address.split_once("://")?;
    if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return None;
    }
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default().to_lowercase();
    let is_host = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    let host = (!host.is_empty() && host.chars().all(is_host)).then_some(Cow::Owned(host));
    let path = path.split(['?', '#']).next().filter(|path| !path.is_empty()).unwrap_or("/");
    Some((host, Some(path.into())))
}

fn parts(url: &Url) -> HostAndPath<'static> {
    let host = url.host_str().map(|host| Cow::Owned(host.to_owned()));
    (host, Some(Cow::Owned(url.path().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_url_split_equals_url_parser() {
        // Every address that is parsed without the URL parser has the host and path that the parser
        // finds.
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
    fn many_property_names_stay_unique() {
        // Flat names stay unique and in order, whether few or many.
        for count in [3, 60, 200] {
            let mut fields = vec![("a".into(), Json::from_valid_unchecked(r#"{"b":0}"#))];
            fields.extend(
                (0..count).map(|n| (format!("k{n}").into(), Json::from_valid_unchecked("1"))),
            );
            fields.push(("a_b".into(), Json::from_valid_unchecked("2")));
            let mut call = Call::new(crate::call::CallKind::Track);
            call.fields = Object::Parsed(fields);
            let data = data(&call, &mut PlanWarnings::default());
            assert_eq!(data.len(), count + 1);
            assert_eq!(data.get("a_b"), Some("2"));
            assert_eq!(data.position("a_b"), Some(0));
        }
    }
}
