//! Calls: what a record meant, in Segment's words. Knows no HTTP and nothing of User.com.
//!
//! A call borrows from the record it was read from: values that pass through are slices of the
//! record's JSON text, never a tree.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The calls of Segment's spec that User.com understands: four, and the merge of two identities.
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
    /// Who the user is: writes the profile.
    Identify,
    /// A page was viewed.
    Page,
    /// Something happened.
    Track,
    /// The user belongs to a company.
    Group,
    /// Two ids are one user: what is known under the previous one goes to the other.
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

/// JSON text known to be valid: one value, no surrounding white space.
#[derive(Clone, PartialEq, Eq)]
pub struct Json<'a>(Cow<'a, str>);

impl<'a> Json<'a> {
    /// Wraps text the caller knows to be one valid JSON value without surrounding white space.
    pub fn trusted(text: impl Into<Cow<'a, str>>) -> Self {
        Self(text.into())
    }

    /// Renders a string as JSON.
    pub fn string(text: &str) -> Self {
        let mut out = String::with_capacity(text.len() + 2);
        write_string(&mut out, text);
        Self(Cow::Owned(out))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, given away.
    pub fn into_text(self) -> Cow<'a, str> {
        self.0
    }

    /// Whether the value is `null`.
    pub fn is_null(&self) -> bool {
        self.0 == "null"
    }

    /// The same value, borrowing nothing.
    pub fn into_owned(self) -> Json<'static> {
        Json(Cow::Owned(self.0.into_owned()))
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Appends a string as JSON. Most need no escapes and are copied as they are.
pub fn write_string(out: &mut String, text: &str) {
    if text.bytes().any(|b| b < 0x20 || b == b'"' || b == b'\\') {
        out.push_str(&serde_json::Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

/// Named JSON values in the order they were set. Names are unique: the mapping sees to it.
pub type Fields<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call<'a> {
    /// Which of the five.
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
    /// `previousId` of an alias: the id that goes.
    pub previous_id: Option<Cow<'a, str>>,
    /// `traits` (identify, group) or `properties` (page, track).
    pub fields: Fields<'a>,
    /// Segment's `context`, its top-level keys.
    pub context: Fields<'a>,
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
            fields: Vec::new(),
            context: Vec::new(),
        }
    }

    /// The customer's own id of the user: `userId`, else `anonymousId`.
    pub fn own_id(&self) -> Option<&str> {
        self.user_id.as_deref().or(self.anonymous_id.as_deref())
    }

    /// The call in Segment's JSON shape, as `explain` prints it and `[[tests]]` compare it.
    /// Keys that are not set are left out.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::{Map, Value};
        fn object(fields: &Fields<'_>) -> Value {
            let entries = fields.iter().map(|(name, json)| {
                let value = serde_json::from_str(json.as_str()).unwrap_or(Value::Null);
                (name.to_string(), value)
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
