//! What a write says under the catalogue as it is now: names and values as they are sent.
//!
//! A write may have been folded from several. They are gone through one after the other, the oldest
//! first, as if each were sent by itself: a value that does not fit its attribute's type leaves the
//! older one standing. Invariant: no network here, and no value is sent that was refused before.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::Usercom;
use crate::call::{Names, elements};
use crate::config::sink::{AttributeType, UnknownAttributes};
use crate::plan::{Field, FieldClass, FieldSet, Whole, write_list};
use crate::usercom::attributes::{self, Attribute, Content, Slot, ValueType};
use crate::usercom::confirmed::Facts;
use crate::usercom::outcome::Probe;

/// A field as it is sent: its name, and its value as JSON text.
pub(super) type Entry<'f> = (Cow<'f, str>, Cow<'f, str>);

/// What an entry is at User.com.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Standard,
    Union,
    /// A custom attribute: its type, by name, and its number. A value is the same as another only
    /// if these are.
    Custom(&'static str, Option<u64>),
}

/// Why a value is left out.
#[derive(Debug)]
enum Why {
    /// It does not fit its attribute's type.
    Unfit(attributes::ConversionError),
    /// There is no such attribute, for a reason.
    NoAttribute(&'static str),
    /// There is none, and so many were created within an hour.
    TooMany(usize),
}

/// Values User.com refused by name, with the names: they are not sent a second time.
#[derive(Debug, Default)]
pub(super) struct Refused(Vec<(String, String)>);

impl Refused {
    pub(super) fn add(&mut self, name: &str, json: &str) {
        if !self.has(name, json) {
            self.0.push((name.to_owned(), json.to_owned()));
        }
    }

    fn has(&self, name: &str, json: &str) -> bool {
        self.0.iter().any(|(known, value)| known == name && value == json)
    }
}

/// A write as it is sent.
pub(super) struct Resolved<'f> {
    /// Names and values, in order.
    pub(super) entries: Vec<Entry<'f>>,
    kinds: Vec<Kind>,
    names: Names,
    /// Attributes to be created before this can be sent.
    pub(super) missing: Vec<&'f str>,
    left_out: Vec<(&'f str, Why)>,
    cropped: Vec<&'f str>,
}

impl<'f> Resolved<'f> {
    fn with_room(fields: usize) -> Self {
        Self {
            entries: Vec::with_capacity(fields),
            kinds: Vec::with_capacity(fields),
            names: Names::default(),
            missing: Vec::new(),
            left_out: Vec::new(),
            cropped: Vec::new(),
        }
    }

    fn set(&mut self, name: Cow<'f, str>, json: Cow<'f, str>, kind: Kind) {
        match self.names.enter(&name, |place| &*self.entries[place].0) {
            Some(place) => {
                self.entries[place].1 = json;
                self.kinds[place] = kind;
            }
            None => {
                self.entries.push((name, json));
                self.kinds.push(kind);
            }
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.names.place(name, |place| &*self.entries[place].0)
    }

    /// The value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        Some(&*self.entries[self.place(name)?].1)
    }

    /// Whether a name is that of a custom attribute.
    pub(super) fn is_custom(&self, name: &str) -> bool {
        self.place(name).is_some_and(|place| matches!(self.kinds[place], Kind::Custom(..)))
    }

    /// What is true of the user or company once this was taken.
    pub(super) fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for ((name, json), kind) in self.entries.iter().zip(&self.kinds) {
            match kind {
                Kind::Standard => facts.value(name, "", None, json),
                Kind::Custom(kind, id) => facts.value(name, kind, *id, json),
                Kind::Union => elements(json).for_each(|element| facts.element(name, element)),
            }
        }
        facts
    }

    /// Passes on what is left out and cut short.
    pub(super) fn tell(&self, probe: &dyn Probe) {
        for name in &self.cropped {
            probe.cropped(name);
        }
        for (name, why) in &self.left_out {
            match why {
                Why::Unfit(error) => probe.conversion_failed(name, &error.to_string()),
                Why::NoAttribute(why) => probe.field_dropped(name, why),
                Why::TooMany(limit) => probe.attribute_refused(name, *limit),
            }
        }
    }
}

impl Usercom {
    /// What a write says now.
    pub(super) fn resolve<'f>(
        &self,
        content: Content,
        fields: &'f FieldSet,
        refused: &Refused,
    ) -> Resolved<'f> {
        let mut resolved = Resolved::with_room(fields.len());
        let mut lists: Vec<(&'f str, Vec<&'f str>)> = Vec::new();
        for layer in fields.layers() {
            let whole = self.whole_objects(content, layer, refused, &mut resolved);
            for (at, field) in layer.iter().enumerate() {
                if whole.contains(layer.owner(at)) {
                    continue;
                }
                match field.class {
                    FieldClass::Standard if refused.has(field.name, field.json) => {}
                    FieldClass::Standard => {
                        let (name, json) = (Cow::Borrowed(field.name), Cow::Borrowed(field.json));
                        resolved.set(name, json, Kind::Standard);
                    }
                    FieldClass::Union => match lists.iter_mut().find(|(n, _)| *n == field.name) {
                        Some((_, list)) => list.extend(elements(field.json)),
                        None => lists.push((field.name, elements(field.json).collect())),
                    },
                    FieldClass::Custom => self.custom(content, field, refused, &mut resolved),
                }
            }
        }
        for (name, list) in lists {
            let mut seen = std::collections::HashSet::with_capacity(list.len());
            let list: Vec<&str> = list.into_iter().filter(|tag| seen.insert(*tag)).collect();
            let mut json = String::new();
            write_list(&mut json, &list);
            if !refused.has(name, &json) {
                resolved.set(Cow::Borrowed(name), Cow::Owned(json), Kind::Union);
            }
        }
        resolved
    }

    /// Sets the attributes of type `json` whose values are whole objects, and says which are.
    fn whole_objects<'f>(
        &self,
        content: Content,
        layer: &'f FieldSet,
        refused: &Refused,
        resolved: &mut Resolved<'f>,
    ) -> WholeObjects {
        let mut whole = WholeObjects::default();
        for (at, Whole { name, json, within }) in layer.objects().iter().enumerate() {
            let field = Field { name, class: FieldClass::Custom, json };
            if whole.contains(*within) {
                // What lies in it is no field either.
                whole.0.push(at);
                continue;
            }
            match self.catalogue.get(content, name) {
                Some(Slot::Known(attribute)) if attribute.value_type == ValueType::Json => {
                    typed(&attribute, field, refused, resolved);
                }
                None if self.catalogue.declared(content, name) == AttributeType::Json => {
                    self.unknown(field, resolved);
                }
                _ => continue,
            }
            whole.0.push(at);
        }
        whole
    }

    fn custom<'f>(
        &self,
        content: Content,
        field: Field<'f>,
        refused: &Refused,
        resolved: &mut Resolved<'f>,
    ) {
        match self.catalogue.get(content, field.name) {
            Some(Slot::Known(attribute)) => typed(&attribute, field, refused, resolved),
            Some(Slot::Refused) => {
                let why = "User.com has no such attribute and refused to create it";
                resolved.left_out.push((field.name, Why::NoAttribute(why)));
            }
            None => self.unknown(field, resolved),
        }
    }

    /// Does with an attribute User.com does not have what the settings say.
    fn unknown<'f>(&self, field: Field<'f>, resolved: &mut Resolved<'f>) {
        let why = match self.users.unknown_attributes {
            UnknownAttributes::Send => {
                let (name, json) = (Cow::Borrowed(field.name), Cow::Borrowed(field.json));
                return resolved.set(name, json, Kind::Custom("unknown", None));
            }
            UnknownAttributes::Create if self.may_create() => {
                return resolved.missing.push(field.name);
            }
            UnknownAttributes::Create => Why::TooMany(self.users.new_attributes_limit()),
            UnknownAttributes::Drop => Why::NoAttribute("User.com has no such attribute"),
        };
        resolved.left_out.push((field.name, why));
    }
}

/// Sets an attribute to a value, if the value fits.
fn typed<'f>(
    attribute: &Attribute,
    field: Field<'f>,
    refused: &Refused,
    resolved: &mut Resolved<'f>,
) {
    let json = match attributes::convert(field.json, &attribute.value_type) {
        Ok(json) => json.into_text(),
        Err(error) => return resolved.left_out.push((field.name, Why::Unfit(error))),
    };
    if attribute.value_type == ValueType::String && attributes::overflows(field.json) {
        resolved.cropped.push(field.name);
    }
    let name = match *attribute.name_std == *field.name {
        true => Cow::Borrowed(field.name),
        false => Cow::Owned(attribute.name_std.to_string()),
    };
    if !refused.has(&name, &json) {
        resolved.set(name, json, Kind::Custom(tag(&attribute.value_type), attribute.id));
    }
}

/// Which values of a type are the same as those of another, by name.
fn tag(value_type: &ValueType) -> &'static str {
    match value_type {
        ValueType::String => "",
        other => other.as_str(),
    }
}

/// Objects of one write that are one value, by their places, so that what lies in them is none.
#[derive(Default)]
struct WholeObjects(SmallVec<[usize; 4]>);

impl WholeObjects {
    fn contains(&self, owner: Option<usize>) -> bool {
        owner.is_some_and(|owner| self.0.contains(&owner))
    }
}
