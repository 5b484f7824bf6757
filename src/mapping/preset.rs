//! `preset = "segment"`: records in the event JSON of Segment and RudderStack, one object or a
//! `{"batch":[…]}`.
//!
//! `type` decides: identify, page, track, group and alias make a call, `screen` makes a page whose
//! path is the screen's name, everything else is unmatched. One
//! rule for identify holds whatever the traits' names: `traits` win, `context.traits` fill the
//! gaps. For the other calls `context.traits` stay in the context, where they came from.
//!
//! Invariant: one pass over an event; every value stays a slice of the record.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::datum::Datum;
use super::explain::Watch;
use super::fault::{RecordFault, RecordFaultCode};
use super::fields::FieldSet;
use super::json::{self, EntriesVisitor, Kind, Name};
use super::{Mapped, MappedCall, RuleId, not_json, rule, timestamp};
use crate::call::{Call, CallKind, Fields, Json};

/// The preset's name, where rules have theirs.
pub(super) const NAME: &str = "preset segment";

/// The `type` of a screen.
const SCREEN: &str = "screen";

/// The raw value of a key; null is nothing.
type Raw<'r> = Option<&'r str>;

/// An event's parts, as they stand in the record.
#[derive(Default)]
struct Event<'r> {
    kind: Raw<'r>,
    user_id: [Raw<'r>; 3],
    anonymous_id: [Raw<'r>; 2],
    message_id: [Raw<'r>; 2],
    /// `timestamp`, `originalTimestamp`, `sentAt`, `receivedAt`.
    times: [Raw<'r>; 4],
    event: Raw<'r>,
    name: Raw<'r>,
    category: Raw<'r>,
    group_id: [Raw<'r>; 2],
    previous_id: [Raw<'r>; 2],
    traits: Object<'r>,
    properties: Object<'r>,
    context: Object<'r>,
    batch: Raw<'r>,
}

/// What stands where an object belongs.
enum Object<'r> {
    Fields(Fields<'r>),
    /// Something else.
    Other(&'static str),
}

impl Default for Object<'_> {
    fn default() -> Self {
        Self::Fields(Vec::new())
    }
}

impl<'r> Object<'r> {
    fn of_raw(raw: &'r str) -> Self {
        match Kind::of(raw) {
            Kind::Null => Self::default(),
            Kind::Object => json::entries(raw).map_or(Self::Other("unreadable"), Self::Fields),
            // Some languages render an empty map as an empty list.
            Kind::Array if json::elements(raw).is_some_and(|e| e.is_empty()) => Self::default(),
            kind => Self::Other(kind.name()),
        }
    }

    fn fields(self, name: &str) -> Result<Fields<'r>, RecordFault> {
        match self {
            Self::Fields(mut fields) => {
                fields.retain(|(_, value)| !value.is_null());
                Ok(fields)
            }
            Self::Other(found) => Err(RecordFault::new(
                RecordFaultCode::NotAnObject,
                format!("`{name}` is {found}, not an object"),
            )
            .at(name, Some(format!(".{name}")))),
        }
    }
}

/// Runs the preset over a record; its calls go into `mapped`.
pub(super) fn run<'r>(
    body: &'r str,
    id: RuleId,
    mapped: &mut Mapped<'r>,
    watch: &mut impl Watch,
) -> Result<(), RecordFault> {
    let Some(mut event) = read(body)? else {
        watch.not_fired(|| "the record is not an object".to_owned());
        return Ok(());
    };
    let batch = event.batch.filter(|_| event.call_kind().is_none());
    let Some(elements) = batch.and_then(json::elements) else {
        match event.call_kind() {
            Some(kind) => push(kind, event, id, 0, mapped).map_err(|f| f.in_rule(NAME))?,
            None => watch.not_fired(|| event.why_not()),
        }
        return Ok(());
    };
    let shared = Shared {
        context: std::mem::take(&mut event.context)
            .fields("context")
            .map_err(|f| f.in_rule(NAME))?,
        times: event.times,
    };
    if elements.is_empty() {
        watch.not_fired(|| "`batch` is an empty array".to_owned());
    }
    for (n, element) in elements.into_iter().enumerate() {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        let place = || format!(".batch[{n}]");
        let Some(mut event) = read(element)? else {
            let fault = RecordFault::new(
                RecordFaultCode::NotAnObject,
                format!("an event of the batch is {}", Kind::of(element).name()),
            );
            return Err(fault.of_element(place).in_rule(NAME));
        };
        let Some(kind) = event.call_kind() else {
            mapped.stats.elements_unmatched += 1;
            watch.not_fired(|| format!("element {n}: {}", event.why_not()));
            continue;
        };
        shared.fill(&mut event);
        push(kind, event, id, n, mapped).map_err(|f| f.of_element(place).in_rule(NAME))?;
    }
    Ok(())
}

/// What a batch says for all of its events.
struct Shared<'r> {
    context: Fields<'r>,
    times: [Raw<'r>; 4],
}

impl<'r> Shared<'r> {
    /// The event's own keys win.
    fn fill(&self, event: &mut Event<'r>) {
        for (own, shared) in event.times.iter_mut().zip(self.times) {
            *own = own.or(shared);
        }
        if let Object::Fields(own) = &mut event.context {
            fill_gaps(own, self.context.clone());
        }
    }
}

/// Adds what is missing, or null, in `fields`.
fn fill_gaps<'r>(fields: &mut Fields<'r>, more: Fields<'r>) {
    if more.is_empty() {
        return;
    }
    let mut set = FieldSet::from_unique(std::mem::take(fields));
    for (name, value) in more {
        if set.get(&name).is_none_or(Json::is_null) {
            set.insert(name, value);
        }
    }
    *fields = set.into_fields();
}

fn push<'r>(
    kind: CallKind,
    event: Event<'r>,
    rule: RuleId,
    element: u32,
    mapped: &mut Mapped<'r>,
) -> Result<(), RecordFault> {
    let call = event.into_call(kind)?;
    rule::check(&call)?;
    mapped.matched = true;
    mapped.calls.push(MappedCall { call, rule, element });
    Ok(())
}

/// The first that is there and not the empty text, as text.
fn first<'r>(candidates: impl IntoIterator<Item = Raw<'r>>) -> Option<Cow<'r, str>> {
    let texts = candidates.into_iter().flatten().filter_map(json::text);
    texts.into_iter().find(|text| !text.is_empty())
}

/// The value of a name.
fn look_up<'a, 'r: 'a>(fields: &'a Fields<'r>, name: &str) -> Option<&'a Json<'r>> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// The text of a name's value, if it is not empty. Copied: the fields stay.
fn owned_text<'r>(fields: &Fields<'_>, names: &[&str]) -> Option<Cow<'r, str>> {
    let values = names.iter().map(|name| look_up(fields, name).map(Json::as_str));
    first(values).map(|text| Cow::Owned(text.into_owned()))
}

impl<'r> Event<'r> {
    fn call_kind(&self) -> Option<CallKind> {
        let kind = json::text(self.kind?)?;
        let known =
            [CallKind::Identify, CallKind::Page, CallKind::Track, CallKind::Group, CallKind::Alias];
        let known = known.into_iter().find(|known| kind.eq_ignore_ascii_case(known.as_str()));
        known.or_else(|| self.is_screen().then_some(CallKind::Page))
    }

    fn is_screen(&self) -> bool {
        self.kind.and_then(json::text).is_some_and(|kind| kind.eq_ignore_ascii_case(SCREEN))
    }

    fn why_not(&self) -> String {
        match self.kind {
            Some(kind) => format!("`type` is {}, which makes no call", json::excerpt(kind)),
            None => "`type` is missing".to_owned(),
        }
    }

    fn into_call(self, kind: CallKind) -> Result<Call<'r>, RecordFault> {
        let mut call = Call::new(kind);
        let is_screen = self.is_screen();
        call.user_id = first(self.user_id);
        call.anonymous_id = first(self.anonymous_id);
        call.message_id = first(self.message_id);
        call.timestamp = self.times.into_iter().flatten().find_map(moment);
        call.context = self.context.fields("context")?;
        call.fields = match kind {
            CallKind::Identify | CallKind::Group => self.traits.fields("traits")?,
            CallKind::Page | CallKind::Track => self.properties.fields("properties")?,
            CallKind::Alias => Fields::new(),
        };
        match kind {
            CallKind::Identify => identify(&mut call),
            CallKind::Group => {
                call.group_id = first(self.group_id)
                    .or_else(|| owned_text(&call.fields, &["groupId", "group_id"]))
                    .or_else(|| owned_text(&call.context, &["groupId", "group_id"]));
            }
            CallKind::Page => {
                let either = |own, name| first([own]).or_else(|| owned_text(&call.fields, &[name]));
                (call.name, call.category) =
                    (either(self.name, "name"), either(self.category, "category"));
                if is_screen {
                    screen(&mut call);
                }
            }
            CallKind::Alias => call.previous_id = first(self.previous_id),
            CallKind::Track => call.name = first([self.event]),
        }
        Ok(call)
    }

    fn slot(&mut self, key: &str) -> Option<&mut Raw<'r>> {
        Some(match key {
            "type" => &mut self.kind,
            "userId" => &mut self.user_id[0],
            "user_id" => &mut self.user_id[1],
            "external_id" => &mut self.user_id[2],
            "anonymousId" => &mut self.anonymous_id[0],
            "anonymous_id" => &mut self.anonymous_id[1],
            "messageId" => &mut self.message_id[0],
            "message_id" => &mut self.message_id[1],
            "timestamp" => &mut self.times[0],
            "originalTimestamp" => &mut self.times[1],
            "sentAt" => &mut self.times[2],
            "receivedAt" => &mut self.times[3],
            "event" => &mut self.event,
            "name" => &mut self.name,
            "category" => &mut self.category,
            "groupId" => &mut self.group_id[0],
            "group_id" => &mut self.group_id[1],
            "previousId" => &mut self.previous_id[0],
            "previous_id" => &mut self.previous_id[1],
            "batch" => &mut self.batch,
            _ => return None,
        })
    }

    fn object(&mut self, key: &str) -> Option<&mut Object<'r>> {
        Some(match key {
            "traits" => &mut self.traits,
            "properties" => &mut self.properties,
            "context" => &mut self.context,
            _ => return None,
        })
    }
}

/// A screen is a page of an app: where it has no address, its name, else its category, is the path.
fn screen(call: &mut Call<'_>) {
    let has = |fields: &Fields<'_>, names| owned_text(fields, names).is_some();
    let page = look_up(&call.context, "page").and_then(|page| json::entries(page.as_str()));
    if has(&call.fields, &["url", "path"]) || page.is_some_and(|p| has(&p, &["url", "path"])) {
        return;
    }
    let Some(name) = call.name.as_deref().or(call.category.as_deref()) else {
        return;
    };
    // These would end the path.
    let name = name.trim().trim_start_matches('/').replace('?', "%3F").replace('#', "%23");
    let path = Json::string(&format!("/{name}"));
    call.fields.retain(|(known, _)| known != "path");
    call.fields.push((Cow::Borrowed("path"), path));
}

/// Traits of an identify: those of the context fill the gaps, and may hold the user's id.
fn identify(call: &mut Call<'_>) {
    let more = look_up(&call.context, "traits").and_then(|traits| {
        let entries = Datum::from_json(traits.as_str().to_owned())?.into_entries();
        entries.ok()
    });
    if let Some(mut more) = more {
        more.retain(|(_, value)| !value.is_null());
        fill_gaps(&mut call.fields, more);
    }
    if call.user_id.is_none() {
        call.user_id = owned_text(&call.fields, &["userId", "id"]);
    }
}

fn moment(raw: &str) -> Option<Timestamp> {
    match Kind::of(raw) {
        Kind::String | Kind::Number => timestamp::parse(json::text(raw)?.trim()),
        _ => None,
    }
}

/// Reads an event; `None` where the text is valid JSON but no object.
fn read(text: &str) -> Result<Option<Event<'_>>, RecordFault> {
    if let Ok(event) = read_with(text, Care::Fast) {
        return Ok(Some(event));
    }
    // Where the fast way fails the text may still be JSON: an odd number where an object should
    // be, or no object at all.
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| not_json(&e, "record"))?;
    if Kind::of(raw.get()) != Kind::Object {
        return Ok(None);
    }
    read_with(text, Care::Careful).map(Some).map_err(|e| not_json(&e, "record"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    Fast,
    Careful,
}

fn read_with(text: &str, care: Care) -> Result<Event<'_>, serde_json::Error> {
    let mut de = serde_json::Deserializer::from_str(text);
    let event = serde::Deserializer::deserialize_map(&mut de, EventVisitor(care))?;
    de.end()?;
    Ok(event)
}

struct EventVisitor(Care);

impl<'r> Visitor<'r> for EventVisitor {
    type Value = Event<'r>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'r>>(self, mut map: A) -> Result<Event<'r>, A::Error> {
        let mut event = Event::default();
        while let Some(key) = map.next_key_seed(Name)? {
            if let Some(slot) = event.slot(&key) {
                let raw: &'r RawValue = map.next_value()?;
                *slot = Some(raw.get()).filter(|raw| Kind::of(raw) != Kind::Null);
            } else if let Some(object) = event.object(&key) {
                *object = if self.0 == Care::Fast {
                    Object::Fields(map.next_value_seed(Entries)?)
                } else {
                    let raw: &'r RawValue = map.next_value()?;
                    Object::of_raw(raw.get())
                };
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(event)
    }

    fn visit_seq<A: SeqAccess<'r>>(self, _: A) -> Result<Event<'r>, A::Error> {
        Err(A::Error::custom("an array stands where an object should"))
    }
}

/// Reads an object's entries in the same pass.
struct Entries;

impl<'r> DeserializeSeed<'r> for Entries {
    type Value = Fields<'r>;

    fn deserialize<D: serde::Deserializer<'r>>(self, d: D) -> Result<Fields<'r>, D::Error> {
        d.deserialize_any(EntriesVisitor)
    }
}
