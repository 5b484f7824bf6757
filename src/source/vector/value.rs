//! A value of an event as JSON.
//!
//! Text that is not UTF-8 has its bad bytes replaced, moments are RFC 3339 in UTC, numbers that JSON
//! does not know (NaN, the infinities) and moments outside the years 1 to 9999 are null. A value of
//! a kind that came later is left out of its object, and is null in a list.

use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::generated::event::Value;
use super::generated::event::value::Kind;

/// A value, to be written as JSON.
pub(super) struct Json<'a>(pub(super) &'a Value);

/// An object, to be written as JSON.
pub(super) struct Object<'a>(pub(super) &'a std::collections::BTreeMap<String, Value>);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (name, value) in self.0 {
            if value.kind.is_some() {
                map.serialize_entry(name, &Json(value))?;
            }
        }
        map.end()
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0.kind {
            None | Some(Kind::Null(_)) => to.serialize_unit(),
            Some(Kind::RawBytes(bytes)) => to.serialize_str(&String::from_utf8_lossy(bytes)),
            Some(Kind::Timestamp(at)) => match moment(at) {
                Some(at) => to.collect_str(&at),
                None => to.serialize_unit(),
            },
            Some(Kind::Integer(number)) => to.serialize_i64(*number),
            Some(Kind::Float(number)) if number.is_finite() => to.serialize_f64(*number),
            Some(Kind::Float(_)) => to.serialize_unit(),
            Some(Kind::Boolean(truth)) => to.serialize_bool(*truth),
            Some(Kind::Map(map)) => Object(&map.fields).serialize(to),
            Some(Kind::Array(array)) => {
                let mut seq = to.serialize_seq(Some(array.items.len()))?;
                for item in &array.items {
                    seq.serialize_element(&Json(item))?;
                }
                seq.end()
            }
        }
    }
}

fn moment(at: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(at.seconds, at.nanos).ok()
}
