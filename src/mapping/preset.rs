//! `preset = "segment"`: records in the event JSON of Segment and RudderStack, one object or a
//! `{"batch":[…]}`.
//!
//! `type` decides: identify, page, track, group and alias make a call, `screen` makes a page whose
//! path is the screen's name, everything else is unmatched. One
//! rule for identify holds whatever the traits' names: `traits` win, `context.traits` fill the
//! gaps. For the other calls `context.traits` stay in the context, where they came from.
//!
//! Invariant: one pass over an event, which takes none of its objects apart; every value stays a
//! slice of the record.

use std::borrow::Cow;

use jiff::Timestamp;

use super::datum::Datum;
use super::explain::Watch;
use super::fault::{RecordFault, RecordFaultCode};
use super::fields::FieldSet;
use super::json::{self, Kind};
use super::pass::{self, Wanted};
use super::{Mapped, MappedCall, RuleId, not_json, rule, timestamp};
use crate::call::{self, Call, CallKind, Json, Object};

/// The preset's name, where rules have theirs.
pub(super) const NAME: &str = "preset segment";

/// The `type` of a screen.
const SCREEN: &str = "screen";

/// The raw value of a key; null is nothing.
type Raw<'r> = Option<&'r str>;

/// A key of an event that is read.
#[derive(Debug, Clone, Copy)]
enum Part {
    Type,
    UserId,
    UserIdSnake,
    ExternalId,
    AnonymousId,
    AnonymousIdSnake,
    MessageId,
    MessageIdSnake,
    Timestamp,
    OriginalTimestamp,
    SentAt,
    ReceivedAt,
    Event,
    Name,
    Category,
    GroupId,
    GroupIdSnake,
    PreviousId,
    PreviousIdSnake,
    Traits,
    Properties,
    Context,
    Batch,
}

const PARTS: usize = Part::Batch as usize + 1;

impl Part {
    fn of(key: &[u8]) -> Option<Self> {
        Some(match key {
            b"type" => Self::Type,
            b"userId" => Self::UserId,
            b"user_id" => Self::UserIdSnake,
            b"external_id" => Self::ExternalId,
            b"anonymousId" => Self::AnonymousId,
            b"anonymous_id" => Self::AnonymousIdSnake,
            b"messageId" => Self::MessageId,
            b"message_id" => Self::MessageIdSnake,
            b"timestamp" => Self::Timestamp,
            b"originalTimestamp" => Self::OriginalTimestamp,
            b"sentAt" => Self::SentAt,
            b"receivedAt" => Self::ReceivedAt,
            b"event" => Self::Event,
            b"name" => Self::Name,
            b"category" => Self::Category,
            b"groupId" => Self::GroupId,
            b"group_id" => Self::GroupIdSnake,
            b"previousId" => Self::PreviousId,
            b"previous_id" => Self::PreviousIdSnake,
            b"traits" => Self::Traits,
            b"properties" => Self::Properties,
            b"context" => Self::Context,
            b"batch" => Self::Batch,
            _ => return None,
        })
    }
}

/// Where a moment may stand, the best first.
const TIMES: [Part; 4] = [Part::Timestamp, Part::OriginalTimestamp, Part::SentAt, Part::ReceivedAt];

/// An event's parts, as they stand in the record.
#[derive(Default)]
struct Event<'r>([Raw<'r>; PARTS]);

/// What stands where an object belongs, if it is one. Nothing is an empty one.
fn object<'r>(raw: Raw<'r>, name: &str) -> Result<Object<'r>, RecordFault> {
    let Some(raw) = raw else {
        return Ok(Object::default());
    };
    match Kind::of(raw) {
        Kind::Object => Ok(Object::Text(raw)),
        // Some languages render an empty map as an empty list.
        Kind::Array if json::elements(raw).is_some_and(|e| e.is_empty()) => Ok(Object::default()),
        kind => Err(RecordFault::new(
            RecordFaultCode::NotAnObject,
            format!("`{name}` is {}, not an object", kind.name()),
        )
        .at(name, Some(format!(".{name}")))),
    }
}

/// Runs the preset over a record; its calls go into `mapped`.
pub(super) fn run<'r>(
    body: &'r str,
    id: RuleId,
    mapped: &mut Mapped<'r>,
    watch: &mut impl Watch,
) -> Result<(), RecordFault> {
    let Some(event) = read(body)? else {
        watch.not_fired(|| "the record is not an object".to_owned());
        return Ok(());
    };
    let batch = event.raw(Part::Batch).filter(|_| event.call_kind().is_none());
    let Some(elements) = batch.and_then(json::elements) else {
        match event.call_kind() {
            Some(kind) => {
                push(kind, event, &Shared::default(), id, 0, mapped)
                    .map_err(|f| f.in_rule(NAME))?;
            }
            None => watch.not_fired(|| event.why_not()),
        }
        return Ok(());
    };
    let shared = Shared {
        context: event.object(Part::Context, "context").map_err(|f| f.in_rule(NAME))?,
        times: TIMES.map(|part| event.raw(part)),
    };
    if elements.is_empty() {
        watch.not_fired(|| "`batch` is an empty array".to_owned());
    }
    for (n, element) in elements.into_iter().enumerate() {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        let place = || format!(".batch[{n}]");
        let Some(event) = read(element)? else {
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
        push(kind, event, &shared, id, n, mapped).map_err(|f| f.of_element(place).in_rule(NAME))?;
    }
    Ok(())
}

/// What a batch says for all of its events.
#[derive(Default)]
struct Shared<'r> {
    context: Object<'r>,
    times: [Raw<'r>; 4],
}

/// Adds what is missing in an object.
fn fill_gaps<'r>(object: &mut Object<'r>, more: Object<'r>) {
    if more.is_empty() {
        return;
    }
    if object.is_empty() {
        *object = more;
        return;
    }
    let mut set = FieldSet::from_unique(std::mem::take(object).into_fields());
    for (name, value) in more.into_fields() {
        if set.get(&name).is_none() {
            set.insert(name, value);
        }
    }
    *object = Object::Entries(set.into_fields());
}

fn push<'r>(
    kind: CallKind,
    event: Event<'r>,
    shared: &Shared<'r>,
    rule: RuleId,
    element: u32,
    mapped: &mut Mapped<'r>,
) -> Result<(), RecordFault> {
    let call = event.into_call(kind, shared)?;
    rule::check(&call)?;
    mapped.matched = true;
    mapped.add(MappedCall { call, rule, element })
}

/// The first that is there and not the empty text, as text.
fn first<'r>(candidates: impl IntoIterator<Item = Raw<'r>>) -> Option<Cow<'r, str>> {
    let texts = candidates.into_iter().flatten().filter_map(json::text);
    texts.into_iter().find(|text| !text.is_empty())
}

/// The text of a name's value, if it is not empty. Copied: the object stays.
fn owned_text<'r>(object: &Object<'_>, names: &[&str]) -> Option<Cow<'r, str>> {
    owned(names.iter().map(|name| object.get(name)))
}

fn owned<'r, 'o>(values: impl IntoIterator<Item = Raw<'o>>) -> Option<Cow<'r, str>> {
    first(values).map(|text| Cow::Owned(text.into_owned()))
}

impl<'r> Event<'r> {
    fn raw(&self, part: Part) -> Raw<'r> {
        self.0[part as usize]
    }

    /// The first of some parts that is not empty, as text.
    fn text<const N: usize>(&self, parts: [Part; N]) -> Option<Cow<'r, str>> {
        first(parts.map(|part| self.raw(part)))
    }

    fn object(&self, part: Part, name: &str) -> Result<Object<'r>, RecordFault> {
        object(self.raw(part), name)
    }

    fn call_kind(&self) -> Option<CallKind> {
        let kind = json::text(self.raw(Part::Type)?)?;
        let known =
            [CallKind::Track, CallKind::Page, CallKind::Identify, CallKind::Group, CallKind::Alias];
        let known = known.into_iter().find(|known| kind.eq_ignore_ascii_case(known.as_str()));
        known.or_else(|| self.is_screen().then_some(CallKind::Page))
    }

    fn is_screen(&self) -> bool {
        let kind = self.raw(Part::Type).and_then(json::text);
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case(SCREEN))
    }

    fn why_not(&self) -> String {
        match self.raw(Part::Type) {
            Some(kind) => format!("`type` is {}, which makes no call", json::excerpt(kind)),
            None => "`type` is missing".to_owned(),
        }
    }

    /// The event's own keys win over the batch's.
    fn into_call(self, kind: CallKind, shared: &Shared<'r>) -> Result<Call<'r>, RecordFault> {
        let mut call = Call::new(kind);
        call.user_id = self.text([Part::UserId, Part::UserIdSnake, Part::ExternalId]);
        call.anonymous_id = self.text([Part::AnonymousId, Part::AnonymousIdSnake]);
        call.message_id = self.text([Part::MessageId, Part::MessageIdSnake]);
        let times = TIMES.iter().zip(shared.times);
        call.timestamp = times.filter_map(|(part, all)| self.raw(*part).or(all)).find_map(moment);
        call.context = self.object(Part::Context, "context")?;
        fill_gaps(&mut call.context, shared.context.clone());
        call.fields = match kind {
            CallKind::Identify | CallKind::Group => self.object(Part::Traits, "traits")?,
            CallKind::Page | CallKind::Track => self.object(Part::Properties, "properties")?,
            CallKind::Alias => Object::default(),
        };
        match kind {
            CallKind::Identify => identify(&mut call),
            CallKind::Group => {
                call.group_id = self
                    .text([Part::GroupId, Part::GroupIdSnake])
                    .or_else(|| owned_text(&call.fields, &["groupId", "group_id"]))
                    .or_else(|| owned_text(&call.context, &["groupId", "group_id"]));
            }
            CallKind::Page => {
                (call.name, call.category) = (self.text([Part::Name]), self.text([Part::Category]));
                if call.name.is_none() || call.category.is_none() {
                    let [name, category] = call.fields.get_all(["name", "category"]);
                    let (name, category) = (owned([name]), owned([category]));
                    call.name = call.name.or(name);
                    call.category = call.category.or(category);
                }
                if self.is_screen() {
                    screen(&mut call);
                }
            }
            CallKind::Alias => {
                call.previous_id = self.text([Part::PreviousId, Part::PreviousIdSnake]);
            }
            CallKind::Track => call.name = self.text([Part::Event]),
        }
        Ok(call)
    }
}

/// A screen is a page of an app: where it has no address, its name, else its category, is the path.
fn screen(call: &mut Call<'_>) {
    let has = |object: &Object<'_>, names| owned_text(object, names).is_some();
    let page = call.context.get("page").filter(|page| Kind::of(page) == Kind::Object);
    if has(&call.fields, &["url", "path"])
        || page.is_some_and(|page| has(&Object::Text(page), &["url", "path"]))
    {
        return;
    }
    let Some(name) = call.name.as_deref().or(call.category.as_deref()) else {
        return;
    };
    // These would end the path.
    let name = name.trim().trim_start_matches('/').replace('?', "%3F").replace('#', "%23");
    let path = Json::string(&format!("/{name}"));
    let mut fields = std::mem::take(&mut call.fields).into_fields();
    fields.retain(|(known, _)| known != "path");
    fields.push((Cow::Borrowed("path"), path));
    call.fields = Object::Entries(fields);
}

/// Traits of an identify: those of the context fill the gaps, and may hold the user's id.
fn identify(call: &mut Call<'_>) {
    if let Some(more) = inner(&call.context, "traits") {
        fill_gaps(&mut call.fields, more);
    }
    if call.user_id.is_none() {
        call.user_id = owned_text(&call.fields, &["userId", "id"]);
    }
}

/// An object inside of another.
fn inner<'r>(object: &Object<'r>, name: &str) -> Option<Object<'r>> {
    let json = match object {
        Object::Text(text) => {
            let named = call::entries(text).filter(|(known, _)| known == name);
            Cow::Borrowed(named.last()?.1)
        }
        Object::Entries(fields) => {
            let (_, json) = fields.iter().find(|(known, _)| known == name)?;
            json.clone().into_text()
        }
    };
    match json {
        Cow::Borrowed(text) => (Kind::of(text) == Kind::Object).then_some(Object::Text(text)),
        Cow::Owned(_) => Datum::from_json(json)?.into_entries().ok().map(Object::Entries),
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
    let mut event = Event::default();
    match pass::pass(text, &mut event) {
        Ok(is_object) => Ok(is_object.then_some(event)),
        Err(error) => Err(not_json(&error, "record")),
    }
}

impl<'r> Wanted<'r> for Event<'r> {
    type Key = Part;

    fn key(&self, name: &[u8]) -> Option<Part> {
        Part::of(name)
    }

    fn take(&mut self, part: Part, raw: &'r str) {
        self.0[part as usize] = Some(raw).filter(|raw| Kind::of(raw) != Kind::Null);
    }
}
