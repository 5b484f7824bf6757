//! Calls as Segment's specification defines them, independent of HTTP and of User.com.
//!
//! A call borrows from its record: values that are copied unchanged are slices of the record's JSON
//! text, not a tree.
//!
//! The containers of this module ([`FixedKeyMap`], [`NameIndex`], the byte scan in `swar`, and
//! `PackedFields` of the scheduler) are hand-made. Replacing them by crates (`phf`, `hashbrown`,
//! `memchr`) was measured with `cargo bench --bench mapping`: the main rows lost 2 to 5 %, and the
//! row of small records 30 %, so they stay.

mod fixed_key_map;
mod json;
mod json_scan;
mod name_index;
mod object;
mod swar;

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

pub use self::fixed_key_map::FixedKeyMap;
pub use self::json::{
    Json, has_escapes, may_have_surrogates, needs_no_escaping, replace_lone_surrogates, trimmed,
    unescape, write_string,
};
pub use self::json_scan::{ElementIter, EntryIter, elements, entries, normalize_escapes};
pub use self::name_index::NameIndex;
pub use self::object::{Fields, Object, ObjectEntries, for_each_entry, unique_entries};

/// The calls of Segment's specification that have a meaning at User.com.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum CallKind {
    /// Writes the profile of a user.
    Identify,
    /// A page was viewed.
    Page,
    /// An event occurred.
    Track,
    /// A user is a member of a company.
    Group,
    /// Two ids are one user: the user with the previous id is merged into the other.
    Alias,
}

impl CallKind {
    /// The name as Segment writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Page => "page",
            Self::Track => "track",
            Self::Group => "group",
            Self::Alias => "alias",
        }
    }
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call<'a> {
    /// The kind.
    pub kind: CallKind,
    /// Segment's `userId`.
    pub user_id: Option<Cow<'a, str>>,
    /// Segment's `anonymousId`.
    pub anonymous_id: Option<Cow<'a, str>>,
    /// Segment's `messageId`, for deduplication.
    pub message_id: Option<Cow<'a, str>>,
    /// When it happened.
    pub timestamp: Option<Timestamp>,
    /// `event` of a track, `name` of a page.
    pub name: Option<Cow<'a, str>>,
    /// `category` of a page.
    pub category: Option<Cow<'a, str>>,
    /// `groupId` of a group.
    pub group_id: Option<Cow<'a, str>>,
    /// `previousId` of an alias: the id of the user that is removed.
    pub previous_id: Option<Cow<'a, str>>,
    /// The key of the user's browser at User.com (cookie `__ca__chat`).
    pub user_key: Option<Cow<'a, str>>,
    /// `traits` (identify, group) or `properties` (page, track).
    pub fields: Object<'a>,
    /// Segment's `context`.
    pub context: Object<'a>,
    /// The zone of times in `fields` that name no zone; `None` stands for UTC.
    pub timezone: Option<TimeZone>,
}

impl<'a> Call<'a> {
    /// An empty call of one kind.
    pub fn new(kind: CallKind) -> Self {
        Self {
            kind,
            user_id: None,
            anonymous_id: None,
            message_id: None,
            timestamp: None,
            name: None,
            category: None,
            group_id: None,
            previous_id: None,
            user_key: None,
            fields: Object::default(),
            context: Object::default(),
            timezone: None,
        }
    }

    /// The external id of the user: `userId`, else `anonymousId`.
    pub fn external_id(&self) -> Option<&str> {
        self.user_id.as_deref().or(self.anonymous_id.as_deref())
    }

    /// Replaces lone surrogates in its objects. JSON's grammar allows them; many parsers reject
    /// them.
    pub fn replace_lone_surrogates(&mut self) {
        self.fields.replace_lone_surrogates();
        self.context.replace_lone_surrogates();
    }

    /// The call in Segment's JSON shape, as `explain` prints it and `[[tests]]` compare it.
    /// Keys that are not set are left out.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::{Map, Value};
        fn object(object: &Object<'_>) -> Value {
            let entries = object.entries().into_iter().map(|(name, json)| {
                // What no parser accepts as a value (1e400, very deep nesting) is shown as a string.
                let json = replace_lone_surrogates(json);
                let value = serde_json::from_str(&json).unwrap_or_else(|_| json.as_ref().into());
                (name.into_owned(), value)
            });
            Value::Object(entries.collect())
        }
        let mut map = Map::new();
        map.insert("type".into(), self.kind.as_str().into());
        let name_key = if self.kind == CallKind::Track { "event" } else { "name" };
        for (key, value) in [
            ("userId", &self.user_id),
            ("anonymousId", &self.anonymous_id),
            ("messageId", &self.message_id),
            (name_key, &self.name),
            ("category", &self.category),
            ("groupId", &self.group_id),
            ("previousId", &self.previous_id),
            ("userKey", &self.user_key),
        ] {
            if let Some(value) = value {
                map.insert(key.into(), value.as_ref().into());
            }
        }
        if let Some(at) = self.timestamp {
            map.insert("timestamp".into(), at.to_string().into());
        }
        let fields_key = match self.kind {
            CallKind::Identify | CallKind::Group | CallKind::Alias => "traits",
            CallKind::Page | CallKind::Track => "properties",
        };
        if !self.fields.is_empty() {
            map.insert(fields_key.into(), object(&self.fields));
        }
        if !self.context.is_empty() {
            map.insert("context".into(), object(&self.context));
        }
        Value::Object(map)
    }
}
