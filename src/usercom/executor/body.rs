//! Bodies of users and companies: every custom attribute under its type.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::Value;

use super::Usercom;
use crate::config::sink::UnknownAttributes;
use crate::deliver::{Attempts, Reply, Request};
use crate::plan::{Field, FieldClass, FieldSet};
use crate::usercom::attributes::{self, Attribute, Content, Slot, ValueType};
use crate::usercom::endpoint;
use crate::usercom::outcome::Failure;
use crate::usercom::profile::limits::name_std;

/// A field as it is sent: its name, and its value as JSON text.
pub(super) type Entry<'f> = (Cow<'f, str>, Cow<'f, str>);

/// Fields as they are sent, in order. What needs no conversion is borrowed.
struct Body<'f> {
    entries: Vec<Entry<'f>>,
    /// Which of them are custom attributes.
    custom: Vec<usize>,
}

impl<'f> Body<'f> {
    fn with_room(fields: usize) -> Self {
        Self { entries: Vec::with_capacity(fields), custom: Vec::new() }
    }

    /// Sets a field, and says which it is.
    fn set(&mut self, name: Cow<'f, str>, json: Cow<'f, str>) -> usize {
        match self.entries.iter().position(|(known, _)| *known == name) {
            Some(at) => {
                self.entries[at].1 = json;
                at
            }
            None => {
                self.entries.push((name, json));
                self.entries.len() - 1
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        let (_, json) = self.entries.iter().find(|(known, _)| known == name)?;
        Some(json)
    }

    fn is_custom(&self, name: &str) -> bool {
        self.custom.iter().any(|at| self.entries[*at].0 == name)
    }
}

impl Usercom {
    /// Sends a write whose body holds fields. When it is refused because of attributes it names,
    /// the catalogue is read anew, what still does not fit is left out, and it is sent once more.
    pub(super) async fn write(
        &self,
        content: Content,
        fields: &FieldSet,
        attempts: &mut Attempts,
        request: impl Fn(&[Entry<'_>]) -> Request + Send,
    ) -> Result<Reply, Failure> {
        let body = self.body(content, fields, attempts).await?;
        let reply = self.send(&request(&body.entries), attempts).await?;
        if reply.status != 400 {
            return Ok(reply);
        }
        let mut refused = named(&endpoint::json(&reply));
        refused.retain(|name| body.is_custom(name));
        if refused.is_empty() {
            return Ok(reply);
        }
        self.catalogue.reread(&*self.transport, attempts).await?;
        // One that is gone from the catalogue is made anew with the body.
        let gone: HashSet<&String> =
            refused.iter().filter(|name| self.catalogue.get(content, name).is_none()).collect();
        let mut again = self.body(content, fields, attempts).await?;
        for name in &refused {
            if !gone.contains(name) && again.get(name) == body.get(name) {
                again.entries.retain(|(known, _)| known != name);
                self.probe.field_dropped(name, "User.com refused the value");
            }
        }
        Ok(self.send(&request(&again.entries), attempts).await?)
    }

    async fn body<'f>(
        &self,
        content: Content,
        fields: &'f FieldSet,
        attempts: &mut Attempts,
    ) -> Result<Body<'f>, Failure> {
        let mut body = Body::with_room(fields.len());
        if fields.iter().any(|field| field.class == FieldClass::Custom) {
            self.catalogue.ensure(&*self.transport, attempts).await?;
        }
        for field in fields.iter() {
            if field.class != FieldClass::Custom {
                body.set(Cow::Borrowed(field.name), Cow::Borrowed(field.json));
                continue;
            }
            if let Some((name, json)) = self.custom(content, field, attempts).await? {
                let at = body.set(name, json);
                body.custom.push(at);
            }
        }
        Ok(body)
    }

    /// A custom attribute's name and value as they are sent; `None` where it is left out.
    async fn custom<'f>(
        &self,
        content: Content,
        field: Field<'f>,
        attempts: &mut Attempts,
    ) -> Result<Option<Entry<'f>>, Failure> {
        let attribute =
            match (self.catalogue.get(content, field.name), self.users.unknown_attributes) {
                (Some(Slot::Known(attribute)), _) => Some(attribute),
                (None, UnknownAttributes::Send) => {
                    return Ok(Some((Cow::Borrowed(field.name), Cow::Borrowed(field.json))));
                }
                (None, UnknownAttributes::Create) => {
                    let (transport, probe) = (&*self.transport, &*self.probe);
                    self.catalogue.create(content, field.name, transport, attempts, probe).await?
                }
                (None, UnknownAttributes::Drop) | (Some(Slot::Refused), _) => None,
            };
        let Some(attribute) = attribute else {
            self.probe.field_dropped(field.name, "User.com has no such attribute");
            return Ok(None);
        };
        Ok(self.typed(&attribute, field))
    }

    fn typed<'f>(&self, attribute: &Attribute, field: Field<'f>) -> Option<Entry<'f>> {
        match attributes::convert(field.json, &attribute.value_type) {
            Ok(json) => {
                if attribute.value_type == ValueType::String && attributes::overflows(field.json) {
                    self.probe.cropped(field.name);
                }
                let name = match *attribute.name_std == *field.name {
                    true => Cow::Borrowed(field.name),
                    false => Cow::Owned(attribute.name_std.to_string()),
                };
                Some((name, json.into_text()))
            }
            Err(error) => {
                self.probe.conversion_failed(field.name, &error.to_string());
                None
            }
        }
    }
}

/// The names a refusal speaks of, as they stand in a body: keys of the object, or of the one
/// under `errors`.
fn named(refusal: &Value) -> Vec<String> {
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .map(|object| object.keys().flat_map(|key| [key.clone(), name_std(key)]).collect())
            .unwrap_or_default()
    };
    let mut names = keys(refusal);
    names.extend(keys(&refusal["errors"]));
    names.sort();
    names.dedup();
    names
}
