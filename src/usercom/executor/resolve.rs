//! Resolves a write with the current catalogue: names and values as they are sent.
//!
//! A write may have been merged from several. They are applied one after the other, the oldest
//! first, as if each were sent by itself: a value that does not fit its attribute's type leaves the
//! older one in place.
//!
//! # Invariants
//!
//! No I/O, and no value is sent that was refused before.

use std::borrow::Cow;
use std::collections::HashSet;

use jiff::tz::TimeZone;
use smallvec::SmallVec;

use super::OpExecutor;
use crate::call::{NameIndex, elements};
use crate::config::sink::{AttributeType, UnknownAttributes};
use crate::schedule::{Field, FieldClass, PackedFields, ParentObject, write_list};
use crate::usercom::attributes::{self, Attribute, AttributeOwner, AttributeState, ValueType};
use crate::usercom::confirmed_fields::Facts;
use crate::usercom::outcome::ExecutorObserver;

/// A field as it is sent: its name, and its value as JSON text.
pub(super) type BodyEntry<'f> = (Cow<'f, str>, Cow<'f, str>);

/// The kind of a field at User.com.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResolvedKind {
    Standard,
    Union,
    /// A custom attribute: its type, by name, and its id. Two values are equal only if these are
    /// equal.
    Custom(&'static str, Option<u64>),
}

impl ResolvedKind {
    /// The attribute's id, if there is one.
    fn id(self) -> Option<u64> {
        match self {
            Self::Custom(_, id) => id,
            Self::Standard | Self::Union => None,
        }
    }
}

/// Why a value is dropped.
#[derive(Debug)]
enum DropReason {
    /// It does not fit its attribute's type.
    Unfit(attributes::ConversionError),
    /// There is no such attribute, with the reason.
    NoAttribute(&'static str),
    /// There is none, and the limit of created attributes per hour is reached.
    TooMany(usize),
    /// User.com refused the same value recently.
    RefusedBefore,
}

/// Values that User.com refused by name, with the names: they are not sent a second time.
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
    pub(super) entries: Vec<BodyEntry<'f>>,
    kinds: Vec<ResolvedKind>,
    names: NameIndex,
    /// Attributes that have to be created before this can be sent.
    pub(super) missing: Vec<&'f str>,
    left_out: Vec<(&'f str, DropReason)>,
    cropped: Vec<&'f str>,
}

impl<'f> Resolved<'f> {
    fn with_room(fields: usize) -> Self {
        Self {
            entries: Vec::with_capacity(fields),
            kinds: Vec::with_capacity(fields),
            names: NameIndex::default(),
            missing: Vec::new(),
            left_out: Vec::new(),
            cropped: Vec::new(),
        }
    }

    fn set(&mut self, name: Cow<'f, str>, json: Cow<'f, str>, kind: ResolvedKind) {
        match self.names.get_or_insert(&name, |place| &*self.entries[place].0) {
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
        self.names.get(name, |place| &*self.entries[place].0)
    }

    /// The value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        Some(&*self.entries[self.place(name)?].1)
    }

    /// The id of a name's attribute, if it is one and its id is known.
    pub(super) fn id(&self, name: &str) -> Option<u64> {
        self.kinds[self.place(name)?].id()
    }

    /// Whether a name is that of a custom attribute.
    pub(super) fn is_custom(&self, name: &str) -> bool {
        self.place(name).is_some_and(|place| matches!(self.kinds[place], ResolvedKind::Custom(..)))
    }

    /// The confirmed values of the user or company once this was accepted.
    pub(super) fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for ((name, json), kind) in self.entries.iter().zip(&self.kinds) {
            match kind {
                ResolvedKind::Standard => facts.value(name, "", None, json),
                ResolvedKind::Custom(kind, id) => facts.value(name, kind, *id, json),
                ResolvedKind::Union => {
                    elements(json).for_each(|element| facts.element(name, element))
                }
            }
        }
        facts
    }

    /// Reports what is dropped and truncated.
    pub(super) fn report_to(&self, probe: &dyn ExecutorObserver) {
        for name in &self.cropped {
            probe.cropped(name);
        }
        for (name, why) in &self.left_out {
            match why {
                DropReason::Unfit(error) => probe.conversion_failed(name, &error.to_string()),
                DropReason::NoAttribute(why) => probe.field_dropped(name, why),
                DropReason::TooMany(limit) => probe.attribute_refused(name, *limit),
                DropReason::RefusedBefore => {
                    probe.field_dropped(name, "User.com refused the same value")
                }
            }
        }
    }
}

impl OpExecutor {
    /// Resolves a write.
    pub(super) fn resolve<'f>(
        &self,
        content: AttributeOwner,
        fields: &'f PackedFields,
        refused: &Refused,
    ) -> Resolved<'f> {
        let out = Resolved::with_room(fields.len());
        let mut resolver =
            Resolver { usercom: self, content, refused, timezone: fields.timezone(), out };
        let mut lists: Vec<(&'f str, Vec<&'f str>)> = Vec::new();
        for layer in fields.layers() {
            resolver.timezone = layer.timezone();
            let whole = resolver.whole_objects(layer);
            for (at, field) in layer.iter().enumerate() {
                if whole.contains(layer.owner(at)) {
                    continue;
                }
                match field.class {
                    FieldClass::Standard => resolver.standard(field),
                    FieldClass::Custom => resolver.custom(field),
                    FieldClass::SetUnion => {
                        match lists.iter_mut().find(|(n, _)| *n == field.name) {
                            Some((_, list)) => list.extend(elements(field.json)),
                            None => lists.push((field.name, elements(field.json).collect())),
                        }
                    }
                }
            }
        }
        for (name, list) in lists {
            resolver.union(name, list);
        }
        resolver.out
    }
}

/// A write that is being resolved.
struct Resolver<'s, 'f> {
    usercom: &'s OpExecutor,
    content: AttributeOwner,
    refused: &'s Refused,
    /// The zone of times without one in the current layer.
    timezone: &'f TimeZone,
    out: Resolved<'f>,
}

impl<'f> Resolver<'_, 'f> {
    /// Sets a value, unless User.com refused it before.
    fn put(&mut self, name: Cow<'f, str>, json: Cow<'f, str>, kind: ResolvedKind, told: &'f str) {
        if self.refused.has(&name, &json) {
            return;
        }
        if self.usercom.was_refused(self.content, &name, kind.id(), &json) {
            return self.out.left_out.push((told, DropReason::RefusedBefore));
        }
        self.out.set(name, json, kind);
    }

    fn standard(&mut self, field: Field<'f>) {
        let (name, json) = (Cow::Borrowed(field.name), Cow::Borrowed(field.json));
        self.put(name, json, ResolvedKind::Standard, field.name);
    }

    fn union(&mut self, name: &'f str, list: Vec<&str>) {
        let mut seen = HashSet::with_capacity(list.len());
        let list: Vec<&str> = list.into_iter().filter(|element| seen.insert(*element)).collect();
        let mut json = String::new();
        write_list(&mut json, &list);
        self.put(Cow::Borrowed(name), Cow::Owned(json), ResolvedKind::Union, name);
    }

    /// Sets the attributes of type `json` whose values are whole objects, and returns which.
    fn whole_objects(&mut self, layer: &'f PackedFields) -> WholeObjects {
        let mut whole = WholeObjects::default();
        for (at, ParentObject { name, json, within }) in layer.objects().iter().enumerate() {
            let field = Field { name, class: FieldClass::Custom, json };
            if whole.contains(*within) {
                // A value in such an object is not a field either.
                whole.0.push(at);
                continue;
            }
            let catalogue = &self.usercom.catalogue;
            match catalogue.get(self.content, name) {
                Some(AttributeState::Known(attribute))
                    if attribute.value_type == ValueType::Json =>
                {
                    self.typed(&attribute, field);
                }
                None if catalogue.declared(self.content, name) == AttributeType::Json => {
                    self.unknown(field);
                }
                _ => continue,
            }
            whole.0.push(at);
        }
        whole
    }

    fn custom(&mut self, field: Field<'f>) {
        match self.usercom.catalogue.get(self.content, field.name) {
            Some(AttributeState::Known(attribute)) => self.typed(&attribute, field),
            Some(AttributeState::Refused) => {
                let why = "User.com has no such attribute and refused to create it";
                self.out.left_out.push((field.name, DropReason::NoAttribute(why)));
            }
            None => self.unknown(field),
        }
    }

    /// Handles an attribute that User.com does not have according to the settings.
    fn unknown(&mut self, field: Field<'f>) {
        let users = &self.usercom.users;
        let why = match users.unknown_attributes {
            UnknownAttributes::Send => {
                let (name, json) = (Cow::Borrowed(field.name), Cow::Borrowed(field.json));
                return self.put(name, json, ResolvedKind::Custom("unknown", None), field.name);
            }
            UnknownAttributes::Create if self.usercom.may_create() => {
                return self.out.missing.push(field.name);
            }
            UnknownAttributes::Create => DropReason::TooMany(users.new_attributes_limit()),
            UnknownAttributes::Drop => DropReason::NoAttribute("User.com has no such attribute"),
        };
        self.out.left_out.push((field.name, why));
    }

    /// Sets an attribute to a value, if the value fits.
    fn typed(&mut self, attribute: &Attribute, field: Field<'f>) {
        let json = match attributes::convert_in(self.timezone, field.json, &attribute.value_type) {
            Ok(json) => json.into_text(),
            Err(error) => return self.out.left_out.push((field.name, DropReason::Unfit(error))),
        };
        if attribute.value_type == ValueType::String && attributes::overflows(field.json) {
            self.out.cropped.push(field.name);
        }
        let name = match *attribute.name_std == *field.name {
            true => Cow::Borrowed(field.name),
            false => Cow::Owned(attribute.name_std.to_string()),
        };
        let kind = ResolvedKind::Custom(tag(&attribute.value_type), attribute.id);
        self.put(name, json, kind, field.name);
    }
}

/// The types whose values are equal to those of another type, by name.
fn tag(value_type: &ValueType) -> &'static str {
    match value_type {
        ValueType::String => "",
        other => other.as_str(),
    }
}

/// Objects of a write that are sent as one value, by their indices, so that their contents are not
/// sent too.
#[derive(Default)]
struct WholeObjects(SmallVec<[usize; 4]>);

impl WholeObjects {
    fn contains(&self, owner: Option<usize>) -> bool {
        owner.is_some_and(|owner| self.0.contains(&owner))
    }
}
