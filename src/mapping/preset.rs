//! `preset = "segment"`: events in the JSON of Segment and RudderStack, one object or a
//! `{"batch":[…]}`.
//!
//! The `type` identify, page, track, group or alias makes that call; `screen` makes a page call whose
//! path is the screen's name; any other type is unmatched, and so is an event that `integrations`
//! excludes from User.com. For identify, `context.traits` are merged under `traits`; for other calls
//! they stay in the context.
//!
//! # Invariants
//! An event is scanned once and its objects are not parsed; values stay slices of the record.

use std::borrow::Cow;

use jiff::Timestamp;

use super::error::{LossKind, MappingError, MappingErrorCode};
use super::eval_context::SourceZone;
use super::explain::RuleObserver;
use super::field::{self, LossRecorder};
use super::integrations::Integrations;
use super::json::{self, JsonKind};
use super::json_value::JsonValue;
use super::named_values::NamedValues;
use super::scan::{self, KeySelector};
use super::{Mapped, MappedCall, RuleId, browser_key, not_json, rule, screen};
use crate::call::{self, Call, CallKind, Object};
use crate::coerce::timestamp;

/// The preset's name, in place of a rule's name.
pub(super) const NAME: &str = "preset segment";

/// The `type` of a screen event.
const SCREEN: &str = "screen";

/// The JSON text of a key; `None` for null.
type Raw<'r> = Option<&'r str>;

/// A key of an event that the preset reads.
#[derive(Debug, Clone, Copy)]
enum EventKey {
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
    Integrations,
    Batch,
}

const EVENT_KEYS: usize = EventKey::Batch as usize + 1;

impl EventKey {
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
            b"integrations" => Self::Integrations,
            b"batch" => Self::Batch,
            _ => return None,
        })
    }
}

/// The keys with a timestamp, in order of preference.
const TIMES: [(EventKey, &str); 4] = [
    (EventKey::Timestamp, "timestamp"),
    (EventKey::OriginalTimestamp, "originalTimestamp"),
    (EventKey::ReceivedAt, "receivedAt"),
    (EventKey::SentAt, "sentAt"),
];

/// The values of an event's keys.
#[derive(Default)]
struct EventValues<'r>([Raw<'r>; EVENT_KEYS]);

/// The object of a key; empty if the key is missing.
fn object<'r>(raw: Raw<'r>, name: &str) -> Result<Object<'r>, MappingError> {
    let Some(raw) = raw else {
        return Ok(Object::default());
    };
    match JsonKind::of(raw) {
        JsonKind::Object => Ok(Object::Raw(raw)),
        // Some languages render an empty map as an empty list.
        JsonKind::Array if json::elements(raw).is_some_and(|e| e.is_empty()) => {
            Ok(Object::default())
        }
        kind => Err(MappingError::new(
            MappingErrorCode::NotAnObject,
            format!("`{name}` is {}, not an object", kind.name()),
        )
        .at(name, Some(format!(".{name}")))),
    }
}

/// Runs the preset and adds its calls to `mapped`.
pub(super) fn run<'r>(
    body: &'r str,
    zone: &SourceZone<'r>,
    id: RuleId,
    mapped: &mut Mapped<'r>,
    observer: &mut impl RuleObserver,
) -> Result<(), MappingError> {
    let Some(event) = read(body)? else {
        observer.not_fired(|| "the record is not an object".to_owned());
        return Ok(());
    };
    let batch = event.raw(EventKey::Batch).filter(|_| event.call_kind().is_none());
    let Some(elements) = batch.and_then(json::elements) else {
        let integrations = Integrations::read(event.raw(EventKey::Integrations));
        match event.call_kind() {
            Some(_) if !integrations.allow() => {
                observer.not_fired(|| integrations.why_not().to_owned());
            }
            Some(kind) => {
                let defaults = BatchDefaults::of_one(zone);
                push(kind, event, &defaults, id, 0, mapped).map_err(|f| f.in_rule(NAME))?;
            }
            None => observer.not_fired(|| event.why_not()),
        }
        return Ok(());
    };
    let defaults = BatchDefaults {
        zone,
        integrations: Integrations::read(event.raw(EventKey::Integrations)),
        context: event.object(EventKey::Context, "context").map_err(|f| f.in_rule(NAME))?,
        times: TIMES.map(|(part, _)| event.raw(part)),
    };
    if elements.is_empty() {
        observer.not_fired(|| "`batch` is an empty array".to_owned());
    }
    for (n, element) in elements.into_iter().enumerate() {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        let element_path = || format!(".batch[{n}]");
        let Some(event) = read(element)? else {
            let fault = MappingError::new(
                MappingErrorCode::NotAnObject,
                format!("an event of the batch is {}", JsonKind::of(element).name()),
            );
            return Err(fault.of_element(element_path).in_rule(NAME));
        };
        let Some(kind) = event.call_kind() else {
            mapped.stats.elements_unmatched += 1;
            observer.not_fired(|| format!("element {n}: {}", event.why_not()));
            continue;
        };
        let integrations = Integrations::read(event.raw(EventKey::Integrations));
        let integrations = integrations.or(defaults.integrations);
        if !integrations.allow() {
            mapped.stats.elements_unmatched += 1;
            observer.not_fired(|| format!("element {n}: {}", integrations.why_not()));
            continue;
        }
        push(kind, event, &defaults, id, n, mapped)
            .map_err(|f| f.of_element(element_path).in_rule(NAME))?;
    }
    Ok(())
}

/// Values of a batch that apply to all of its events.
struct BatchDefaults<'z, 'r> {
    context: Object<'r>,
    times: [Raw<'r>; 4],
    integrations: Integrations,
    zone: &'z SourceZone<'r>,
}

impl<'z, 'r> BatchDefaults<'z, 'r> {
    /// For an event outside a batch.
    fn of_one(zone: &'z SourceZone<'r>) -> Self {
        Self {
            context: Object::default(),
            times: [None; 4],
            integrations: Integrations::default(),
            zone,
        }
    }
}

/// Adds the entries that an object does not have.
fn merge_missing<'r>(object: &mut Object<'r>, more: Object<'r>) {
    if more.is_empty() {
        return;
    }
    if object.is_empty() {
        *object = more;
        return;
    }
    let mut set = NamedValues::from_unique(std::mem::take(object).into_fields());
    for (name, value) in more.into_fields() {
        if set.get(&name).is_none() {
            set.insert(name, value);
        }
    }
    *object = Object::Parsed(set.into_fields());
}

fn push<'r>(
    kind: CallKind,
    event: EventValues<'r>,
    defaults: &BatchDefaults<'_, 'r>,
    rule: RuleId,
    element: u32,
    mapped: &mut Mapped<'r>,
) -> Result<(), MappingError> {
    let mut losses = LossRecorder { stats: &mut mapped.stats, rule };
    let call = event.into_call(kind, defaults, &mut losses)?;
    rule::check(&call)?;
    mapped.matched = true;
    mapped.add(MappedCall { call, rule, element })
}

/// The first non-empty scalar, as a string.
fn first<'r>(candidates: impl IntoIterator<Item = Raw<'r>>) -> Option<Cow<'r, str>> {
    let texts = candidates.into_iter().flatten().filter_map(json::text);
    texts.into_iter().find(|text| !text.is_empty())
}

/// The first non-empty scalar, copied.
fn owned<'r, 'o>(values: impl IntoIterator<Item = Raw<'o>>) -> Option<Cow<'r, str>> {
    first(values).map(|text| Cow::Owned(text.into_owned()))
}

/// The first value that is an id. Values that are not ids are counted.
fn id<'r>(
    candidates: impl IntoIterator<Item = Raw<'r>>,
    name: &str,
    losses: &mut LossRecorder<'_>,
) -> Option<Cow<'r, str>> {
    id_by(candidates, name, losses, field::as_id)
}

fn id_by<'r>(
    candidates: impl IntoIterator<Item = Raw<'r>>,
    name: &str,
    losses: &mut LossRecorder<'_>,
    read: impl Fn(JsonValue<'r>) -> Result<Option<Cow<'r, str>>, String>,
) -> Option<Cow<'r, str>> {
    for raw in candidates.into_iter().flatten() {
        match read(JsonValue::Json(Cow::Borrowed(raw))) {
            Ok(Some(id)) => return Some(id),
            Ok(None) => {}
            Err(reason) => losses.stats.lose(losses.rule, name, LossKind::Conversion, reason),
        }
    }
    None
}

/// The first id among the values of an object, copied.
fn owned_id<'r>(
    object: &Object<'_>,
    names: [&str; 2],
    name: &str,
    losses: &mut LossRecorder<'_>,
) -> Option<Cow<'r, str>> {
    let values = names.map(|name| object.get(name));
    id(values, name, losses).map(|id| Cow::Owned(id.into_owned()))
}

impl<'r> EventValues<'r> {
    fn raw(&self, part: EventKey) -> Raw<'r> {
        self.0[part as usize]
    }

    /// The first non-empty scalar of some keys, as a string.
    fn text<const N: usize>(&self, parts: [EventKey; N]) -> Option<Cow<'r, str>> {
        first(parts.map(|part| self.raw(part)))
    }

    fn object(&self, part: EventKey, name: &str) -> Result<Object<'r>, MappingError> {
        object(self.raw(part), name)
    }

    fn call_kind(&self) -> Option<CallKind> {
        let kind = json::text(self.raw(EventKey::Type)?)?;
        let known =
            [CallKind::Track, CallKind::Page, CallKind::Identify, CallKind::Group, CallKind::Alias];
        let known = known.into_iter().find(|known| kind.eq_ignore_ascii_case(known.as_str()));
        known.or_else(|| self.is_screen().then_some(CallKind::Page))
    }

    fn is_screen(&self) -> bool {
        let kind = self.raw(EventKey::Type).and_then(json::text);
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case(SCREEN))
    }

    fn why_not(&self) -> String {
        match self.raw(EventKey::Type) {
            Some(kind) => format!("`type` is {}, which makes no call", json::excerpt(kind)),
            None => "`type` is missing".to_owned(),
        }
    }

    /// The timestamp. One that cannot be read is skipped for the next key. If none can be read, the
    /// event is rejected: the current time would be wrong.
    fn timestamp(
        &self,
        defaults: &BatchDefaults<'_, 'r>,
        losses: &mut LossRecorder<'_>,
    ) -> Result<Option<Timestamp>, MappingError> {
        let mut unread: Vec<String> = Vec::new();
        for ((part, name), all) in TIMES.into_iter().zip(defaults.times) {
            let Some(raw) = self.raw(part).or(all).filter(|raw| !is_blank(raw)) else {
                continue;
            };
            let why = match timestamp::instant_of_json(raw, defaults.zone.get()) {
                Some(instant) if !timestamp::is_zero_time(instant) => {
                    for why in unread {
                        let reason = format!("{why}; `{name}` is used");
                        losses.stats.lose(losses.rule, "timestamp", LossKind::Conversion, reason);
                    }
                    return Ok(Some(instant));
                }
                Some(_) => "is a placeholder for a missing time",
                None => "is not a timestamp",
            };
            unread.push(format!("`{name}` {} {why}", json::excerpt(raw)));
        }
        if unread.is_empty() {
            return Ok(None);
        }
        let fault = MappingError::new(MappingErrorCode::ConversionFailed, unread.join("; "));
        Err(fault.at("timestamp", Some(".timestamp".to_owned())))
    }

    /// The event's keys win over the batch's.
    fn into_call(
        self,
        kind: CallKind,
        defaults: &BatchDefaults<'_, 'r>,
        losses: &mut LossRecorder<'_>,
    ) -> Result<Call<'r>, MappingError> {
        let mut call = Call::new(kind);
        let user = [EventKey::UserId, EventKey::UserIdSnake, EventKey::ExternalId];
        call.user_id = id(user.map(|part| self.raw(part)), "user_id", losses);
        let anonymous = [EventKey::AnonymousId, EventKey::AnonymousIdSnake];
        call.anonymous_id = id(anonymous.map(|part| self.raw(part)), "anonymous_id", losses);
        let message = [EventKey::MessageId, EventKey::MessageIdSnake].map(|part| self.raw(part));
        call.message_id = id_by(message, "message_id", losses, field::as_message_id);
        call.timestamp = self.timestamp(defaults, losses)?;
        call.context = self.object(EventKey::Context, "context")?;
        merge_missing(&mut call.context, defaults.context.clone());
        call.fields = match kind {
            CallKind::Identify | CallKind::Group => self.object(EventKey::Traits, "traits")?,
            CallKind::Page | CallKind::Track => self.object(EventKey::Properties, "properties")?,
            CallKind::Alias => Object::default(),
        };
        match kind {
            CallKind::Identify => identify(&mut call, losses),
            CallKind::Group => {
                const NAMES: [&str; 2] = ["groupId", "group_id"];
                let own = [EventKey::GroupId, EventKey::GroupIdSnake].map(|part| self.raw(part));
                call.group_id = id(own, "group_id", losses)
                    .or_else(|| owned_id(&call.fields, NAMES, "group_id", losses))
                    .or_else(|| owned_id(&call.context, NAMES, "group_id", losses));
            }
            CallKind::Page => {
                (call.name, call.category) =
                    (self.text([EventKey::Name]), self.text([EventKey::Category]));
                if call.name.is_none() || call.category.is_none() {
                    let [name, category] = call.fields.get_all(["name", "category"]);
                    let (name, category) = (owned([name]), owned([category]));
                    call.name = call.name.or(name);
                    call.category = call.category.or(category);
                }
                if self.is_screen() {
                    screen::name_as_path(&mut call);
                }
            }
            CallKind::Alias => {
                let previous = [EventKey::PreviousId, EventKey::PreviousIdSnake];
                call.previous_id = id(previous.map(|part| self.raw(part)), "previous_id", losses);
            }
            CallKind::Track => call.name = self.text([EventKey::Event]),
        }
        call.user_key = browser_key::read(&call.context, self.raw(EventKey::Integrations));
        Ok(call)
    }
}

/// Merges the traits of the context under those of an identify, which may hold the user id.
fn identify(call: &mut Call<'_>, losses: &mut LossRecorder<'_>) {
    if let Some(more) = inner(&call.context, "traits") {
        merge_missing(&mut call.fields, more);
    }
    if call.user_id.is_none() {
        call.user_id = owned_id(&call.fields, ["userId", "id"], "user_id", losses);
    }
}

/// The object at a key of an object.
pub(super) fn inner<'r>(object: &Object<'r>, name: &str) -> Option<Object<'r>> {
    let json = match object {
        Object::Raw(text) => {
            let named = call::entries(text).filter(|(known, _)| known == name);
            Cow::Borrowed(named.last()?.1)
        }
        Object::Parsed(fields) => {
            let (_, json) = fields.iter().find(|(known, _)| known == name)?;
            json.clone().into_text()
        }
    };
    match json {
        Cow::Borrowed(text) => {
            (JsonKind::of(text) == JsonKind::Object).then_some(Object::Raw(text))
        }
        Cow::Owned(_) => JsonValue::from_json(json)?.into_entries().ok().map(Object::Parsed),
    }
}

/// Whether a value is a blank string, which many systems write for a missing value.
fn is_blank(raw: &str) -> bool {
    raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')).is_some_and(|t| t.trim().is_empty())
}

/// Reads an event; `None` if the text is valid JSON but not an object.
fn read(text: &str) -> Result<Option<EventValues<'_>>, MappingError> {
    let mut event = EventValues::default();
    match scan::scan(text, &mut event) {
        Ok(is_object) => Ok(is_object.then_some(event)),
        Err(error) => Err(not_json(&error, "record")),
    }
}

impl<'r> KeySelector<'r> for EventValues<'r> {
    type Key = EventKey;

    fn key(&self, name: &[u8]) -> Option<EventKey> {
        EventKey::of(name)
    }

    fn take(&mut self, part: EventKey, raw: &'r str) {
        self.0[part as usize] = Some(raw).filter(|raw| JsonKind::of(raw) != JsonKind::Null);
    }
}
