//! Writes the fields of users and companies, and handles refusals that name some of them.

use serde_json::Value;

use super::OpExecutor;
use super::resolve::{BodyEntry, Refused, Resolved};
use crate::deliver::{ApiReply, Attempts, Request};
use crate::schedule::{FieldClass, PackedFields};
use crate::usercom::attributes::{AttributeOwner, Creation};
use crate::usercom::confirmed_fields::Facts;
use crate::usercom::endpoint;
use crate::usercom::outcome::ExecuteError;
use crate::usercom::profile::limits::name_std;

/// How often a write is repeated without the values that its refusal named. Usually one refusal
/// names all of them.
const REFUSALS: usize = 20;
/// How often a write is resolved again because attributes that it needs were deleted.
const LOOKS: usize = 3;

/// The response to a write.
pub(super) struct Written {
    pub(super) reply: ApiReply,
    /// What the write contained, without what was dropped.
    pub(super) facts: Facts,
}

impl OpExecutor {
    /// Sends a write whose body contains fields. If it is refused because of fields that the
    /// response names, the catalogue is read again, values that are still refused are dropped, and
    /// the rest is sent.
    pub(super) async fn write(
        &self,
        content: AttributeOwner,
        fields: &PackedFields,
        attempts: &mut Attempts,
        request: impl Fn(&[BodyEntry<'_>]) -> Request + Send,
    ) -> Result<Written, ExecuteError> {
        let mut refused = Refused::default();
        let mut body = self.body(content, fields, &refused, attempts).await?;
        let mut refusals = 0;
        loop {
            let reply = self.send(&request(&body.entries), attempts).await?;
            let mut named = match reply.status {
                400 if refusals < REFUSALS => {
                    named(&endpoint::json(&reply), |name| body.get(name).map(|_| name.to_owned()))
                }
                _ => Vec::new(),
            };
            if named.is_empty() {
                // A write that is refused as a whole is sent in another way by the caller, or is a
                // dead letter.
                if reply.is_success() {
                    body.report_to(&*self.probe);
                }
                return Ok(Written { facts: body.facts(), reply });
            }
            let again = match refusals {
                0 => self.looked_at_anew(content, fields, &mut named, &body, attempts).await?,
                _ => None,
            };
            for name in &named {
                let json = body.get(name).unwrap_or_default();
                refused.add(name, json);
                self.note_refused(content, name, body.id(name), json);
                self.probe.field_dropped(name, "User.com refused the value");
            }
            body = match again {
                Some(again) if named.is_empty() => again,
                _ => self.body(content, fields, &refused, attempts).await?,
            };
            refusals += 1;
        }
    }

    /// Reads the catalogue again if attributes are refused, and removes those from the refused
    /// names that are sent in another way now: an attribute whose type has changed, and one that
    /// was deleted, which is created again.
    async fn looked_at_anew<'f>(
        &self,
        content: AttributeOwner,
        fields: &'f PackedFields,
        named: &mut Vec<String>,
        before: &Resolved<'_>,
        attempts: &mut Attempts,
    ) -> Result<Option<Resolved<'f>>, ExecuteError> {
        if !named.iter().any(|name| before.is_custom(name)) {
            return Ok(None);
        }
        self.catalogue.reread(&*self.transport, attempts).await?;
        let custom = |name: &String| before.is_custom(name);
        let is_gone = |name: &String| self.catalogue.get(content, name).is_none();
        let gone: Vec<String> =
            named.iter().filter(|name| custom(name) && is_gone(name)).cloned().collect();
        let again = self.body(content, fields, &Refused::default(), attempts).await?;
        named.retain(|name| {
            let other = gone.contains(name) && self.catalogue.get(content, name).is_some();
            !other && again.get(name) == before.get(name)
        });
        Ok(Some(again))
    }

    /// The body of a write; attributes that it needs are created.
    async fn body<'f>(
        &self,
        content: AttributeOwner,
        fields: &'f PackedFields,
        refused: &Refused,
        attempts: &mut Attempts,
    ) -> Result<Resolved<'f>, ExecuteError> {
        if has_attributes(fields) {
            self.catalogue.ensure(&*self.transport, attempts).await?;
        }
        let mut body = self.resolve(content, fields, refused);
        for _ in 0..LOOKS {
            if body.missing.is_empty() {
                break;
            }
            for name in std::mem::take(&mut body.missing) {
                if self.create_attribute(content, name, attempts).await? == Creation::TooMany {
                    break;
                }
            }
            body = self.resolve(content, fields, refused);
        }
        Ok(body)
    }
}

/// Whether there are custom attributes among the fields.
pub(super) fn has_attributes(fields: &PackedFields) -> bool {
    let is_custom =
        |layer: &PackedFields| layer.iter().any(|field| field.class == FieldClass::Custom);
    fields.layers().iter().any(|layer| !layer.objects().is_empty() || is_custom(layer))
}

/// The sent names that a refusal names: keys of the object, or of one that lists errors by field;
/// the fields in a list of errors; if there are none, names in its messages. `sent` returns the
/// name as it was sent.
pub(super) fn named(refusal: &Value, sent: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut names = RefusedNames { found: Vec::new(), sent };
    let inner = ["errors", "detail", "details", "error", "fields", "attributes", "data"];
    let places = std::iter::once(refusal).chain(inner.iter().map(|key| &refusal[*key]));
    for place in places {
        let keys = place.as_object().into_iter().flat_map(|object| object.keys());
        let listed = place.as_array().into_iter().flatten().filter_map(|fault| {
            ["field", "name", "attribute", "attr"].iter().find_map(|key| fault[*key].as_str())
        });
        keys.map(String::as_str).chain(listed).for_each(|name| names.add(name));
    }
    if names.found.is_empty() {
        names.add_from_messages(refusal);
    }
    names.found
}

/// The sent names that a refusal names.
struct RefusedNames<F> {
    found: Vec<String>,
    sent: F,
}

impl<F: Fn(&str) -> Option<String>> RefusedNames<F> {
    fn add(&mut self, name: &str) {
        for name in [name, &name_std(name)].into_iter().filter_map(&self.sent) {
            if !self.found.contains(&name) {
                self.found.push(name);
            }
        }
    }

    /// Adds the texts in quotes, and the word after `attribute` and the like.
    fn add_from_messages(&mut self, refusal: &Value) {
        const BEFORE: [&str; 6] = ["attribute", "field", "key", "property", "parameter", "param"];
        match refusal {
            Value::Array(items) => items.iter().for_each(|item| self.add_from_messages(item)),
            Value::Object(object) => {
                object.values().for_each(|value| self.add_from_messages(value));
            }
            Value::String(message) => {
                for quote in ['\'', '"', '`'] {
                    message.split(quote).skip(1).step_by(2).for_each(|name| self.add(name));
                }
                let words = message.split_whitespace();
                for (before, word) in words.clone().zip(words.skip(1)) {
                    let before = before.trim_end_matches(':').to_ascii_lowercase();
                    if BEFORE.contains(&&*before) {
                        self.add(word.trim_matches(|c: char| !c.is_alphanumeric() && c != '_'));
                    }
                }
            }
            _ => {}
        }
    }
}
