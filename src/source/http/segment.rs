//! Segment's HTTP tracking API: turns the body that an SDK sent into events in Segment's JSON.
//!
//! One call becomes one event with the `type` of its path. A batch becomes one event per entry,
//! with the batch's `context`, `integrations` and `sentAt` where an entry does not have them.
//! `receivedAt` is the time of receipt. An event without `timestamp` gets its `originalTimestamp`,
//! else its `sentAt`, else `receivedAt`. The sender's timestamps are trusted as sent; they are not
//! corrected by the difference between the clocks.
//!
//! # Invariants
//!
//! Values are copied unchanged; only the keys named here are touched.

use std::borrow::Cow;

use bytes::Bytes;
use indexmap::IndexMap;
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::records::{BodyRecord, MAX_RECORDS};
use super::reply::RequestError;

type RawObject<'a> = IndexMap<Cow<'a, str>, Cow<'a, RawValue>>;

/// What is known of a request besides its body.
pub(super) struct ReceiveInfo {
    /// When it was received.
    pub(super) at: Timestamp,
    /// The address of a browser; used as `context.ip` where an event has none.
    pub(super) ip: Option<String>,
}

/// The body that an SDK sent, parsed as far as its outermost object.
pub(super) struct SegmentRequest<'a> {
    object: RawObject<'a>,
}

impl<'a> SegmentRequest<'a> {
    /// Reads a body.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, RequestError> {
        match object(body) {
            Some(object) => Ok(Self { object }),
            None => Err(RequestError::NotAnObject),
        }
    }

    /// The write key in the body, where browsers send it.
    pub(super) fn write_key(&self) -> Option<String> {
        text(self.object.get("writeKey")?)
    }

    /// The event of a call whose path gives its type.
    pub(super) fn call(mut self, kind: &str, received: &ReceiveInfo) -> Vec<BodyRecord> {
        self.object.shift_remove("writeKey");
        set(&mut self.object, "type", &kind.into());
        vec![BodyRecord::plain(finish(self.object, received), 1)]
    }

    /// The events of a batch, at most `max_bytes` of them.
    pub(super) fn batch(
        mut self,
        received: &ReceiveInfo,
        max_bytes: usize,
    ) -> Result<Vec<BodyRecord>, RequestError> {
        let batch = self.object.shift_remove("batch");
        let batch: Vec<&RawValue> = match &batch {
            Some(batch) => serde_json::from_str(batch.get()).map_err(|_| RequestError::NoBatch)?,
            None => return Err(RequestError::NoBatch),
        };
        if batch.len() > MAX_RECORDS {
            return Err(RequestError::TooMany);
        }
        let mut items = Vec::with_capacity(batch.len());
        let mut length = 0;
        for (number, entry) in (1..).zip(batch) {
            let item = match object(entry.get().as_bytes()) {
                Some(entry) => {
                    let body = finish(self.fill(entry), received);
                    BodyRecord::plain(body, number)
                }
                None => {
                    let body = Bytes::copy_from_slice(entry.get().as_bytes());
                    let fault = Some(format!("entry {number} of the batch is not an object"));
                    BodyRecord { fault, ..BodyRecord::plain(body, number) }
                }
            };
            // The batch's fields are copied into each entry, which must not multiply its size.
            length += item.body.len();
            if length > max_bytes {
                return Err(RequestError::TooLarge);
            }
            items.push(item);
        }
        Ok(items)
    }

    /// An entry with the batch's fields. The entry's own keys win.
    fn fill<'b>(&'b self, mut entry: RawObject<'b>) -> RawObject<'b> {
        entry.shift_remove("writeKey");
        for key in ["context", "integrations"] {
            let Some(shared) = self.object.get(key).filter(|shared| !is_null(shared)) else {
                continue;
            };
            let merged = match entry.get(key) {
                Some(own) if !is_null(own) => merged(own, shared),
                _ => Some(Cow::Borrowed(&**shared)),
            };
            if let Some(merged) = merged {
                entry.insert(key.into(), merged);
            }
        }
        if let Some(sent) = self.object.get("sentAt")
            && entry.get("sentAt").is_none_or(|own| is_null(own))
        {
            entry.insert("sentAt".into(), Cow::Borrowed(&**sent));
        }
        entry
    }
}

/// Merges two objects; the keys of the first win. `None` where one is not an object.
fn merged<'a>(own: &RawValue, shared: &RawValue) -> Option<Cow<'a, RawValue>> {
    let mut own = object(own.get().as_bytes())?;
    for (key, value) in object(shared.get().as_bytes())? {
        if own.get(&key).is_none_or(|own| is_null(own)) {
            own.insert(key, value);
        }
    }
    raw(&own).map(Cow::Owned)
}

/// Sets the times and the address, then serializes the event.
fn finish(mut event: RawObject<'_>, received: &ReceiveInfo) -> Bytes {
    let received_at = received.at.to_string();
    set(&mut event, "receivedAt", &received_at.as_str().into());
    if event.get("timestamp").is_none_or(|at| is_null(at)) {
        let known = ["originalTimestamp", "sentAt", "receivedAt"];
        let at = known.iter().find_map(|key| event.get(*key).filter(|at| !is_null(at)).cloned());
        if let Some(at) = at {
            event.insert("timestamp".into(), at);
        }
    }
    if let Some(ip) = &received.ip {
        set_ip(&mut event, ip);
    }
    serde_json::to_vec(&event).expect("texts by texts are always JSON").into()
}

fn set_ip(event: &mut RawObject<'_>, ip: &str) {
    let mut context = match event.get("context") {
        None => RawObject::new(),
        Some(context) if is_null(context) => RawObject::new(),
        Some(context) => match object(context.get().as_bytes()) {
            Some(context) => context,
            None => return,
        },
    };
    if context.get("ip").is_some_and(|ip| !is_null(ip)) {
        return;
    }
    set(&mut context, "ip", &ip.into());
    if let Some(context) = raw(&context) {
        event.insert("context".into(), Cow::Owned(context));
    }
}

fn set(object: &mut RawObject<'_>, key: &'static str, value: &serde_json::Value) {
    if let Ok(value) = serde_json::value::to_raw_value(value) {
        object.insert(key.into(), Cow::Owned(value));
    }
}

fn raw(object: &RawObject<'_>) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(object).ok()
}

/// An object's entries; of equal keys the last wins.
fn object(text: &[u8]) -> Option<RawObject<'_>> {
    let entries: IndexMap<String, &RawValue> = serde_json::from_slice(text).ok()?;
    Some(entries.into_iter().map(|(key, value)| (key.into(), Cow::Borrowed(value))).collect())
}

fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn received(ip: Option<&str>) -> ReceiveInfo {
        let at = "2026-01-02T00:00:00Z".parse().unwrap();
        ReceiveInfo { at, ip: ip.map(str::to_owned) }
    }

    fn values(items: &[BodyRecord]) -> Vec<Value> {
        items.iter().map(|item| serde_json::from_slice(&item.body).unwrap()).collect()
    }

    #[test]
    fn segment_call_gets_its_type_and_times() {
        // The path decides the type, whatever the body says; the write key is removed.
        let body = br#"{"writeKey":"k","type":"x","userId":"u","originalTimestamp":"2026-01-01T00:00:00Z","big":12345678901234567890123}"#;
        let request = SegmentRequest::read(body).unwrap();
        assert_eq!(request.write_key().as_deref(), Some("k"));
        let items = request.call("track", &received(None));
        let text = std::str::from_utf8(&items[0].body).unwrap();
        assert!(text.contains("12345678901234567890123"), "{text}");
        assert_eq!(
            values(&items)[0]["timestamp"],
            json!("2026-01-01T00:00:00Z"),
            "the sender's clock is taken at its word"
        );
        assert_eq!(values(&items)[0]["type"], "track");
        assert_eq!(values(&items)[0]["receivedAt"], "2026-01-02T00:00:00Z");
        assert_eq!(values(&items)[0].get("writeKey"), None);
    }

    #[test]
    fn batch_fields_apply_to_its_entries() {
        // The batch's fields fill what its entries lack and override nothing.
        let body = br#"{"sentAt":"2026-01-01T00:00:00Z","context":{"ip":"1","locale":"pl"},"integrations":{"All":true},
            "batch":[{"type":"track","context":{"ip":"2","locale":null}},{"type":"page","timestamp":"2025-01-01T00:00:00Z"},3]}"#;
        let items =
            SegmentRequest::read(body).unwrap().batch(&received(Some("9")), 10_000).unwrap();
        let found = values(&items);
        assert_eq!(found[0]["context"], json!({"ip": "2", "locale": "pl"}));
        assert_eq!(found[0]["timestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(found[1]["timestamp"], "2025-01-01T00:00:00Z");
        assert_eq!(found[1]["context"]["ip"], "1");
        assert_eq!(found[1]["integrations"], json!({"All": true}));
        let faults: Vec<bool> = items.iter().map(|item| item.fault.is_some()).collect();
        assert_eq!(faults, [false, false, true]);
    }

    #[test]
    fn browser_call_gets_the_client_ip() {
        // The peer's address is used only where the event has none.
        let items =
            SegmentRequest::read(b"{}").unwrap().call("page", &received(Some("203.0.113.7")));
        assert_eq!(values(&items)[0]["context"]["ip"], "203.0.113.7");
    }

    #[test]
    fn batch_expansion_is_bounded() {
        // A large shared context with many small entries is refused, not multiplied.
        let body = format!(
            r#"{{"context":{{"x":"{}"}},"batch":[{}{{}}]}}"#,
            "x".repeat(1000),
            "{},".repeat(999)
        );
        let batch = SegmentRequest::read(body.as_bytes()).unwrap().batch(&received(None), 100_000);
        assert!(matches!(batch, Err(RequestError::TooLarge)));
    }
}
