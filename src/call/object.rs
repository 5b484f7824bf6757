//! An object of a call: its traits, its properties, its context.
//!
//! Most pass through as they stand in the record. They stay text, which nobody takes apart before
//! somebody has to.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::json::{Json, mended};
use super::names::Names;
use super::walk;

/// Named JSON values in the order they were set. Names are unique: the mapping sees to it.
pub type Fields<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

/// The entries of an object: names unique, in order, no nulls.
pub type Opened<'o> = SmallVec<[(Cow<'o, str>, &'o str); 12]>;

/// An object's entries.
#[derive(Debug, Clone)]
pub enum Object<'a> {
    /// The text of a JSON object, as it stands in the record. Of a name given twice the last value
    /// counts, in the first one's place; null is the same as missing.
    Text(&'a str),
    /// Entries that were put together; null is the same as missing here, too.
    Entries(Fields<'a>),
}

impl Default for Object<'_> {
    fn default() -> Self {
        Self::Entries(Vec::new())
    }
}

/// The same entries in the same order.
impl PartialEq for Object<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.open() == other.open()
    }
}

impl<'a> Object<'a> {
    /// Takes it apart.
    pub fn open(&self) -> Opened<'_> {
        match self {
            Self::Text(text) => opened(text),
            Self::Entries(fields) => fields
                .iter()
                .filter(|(_, json)| !json.is_null())
                .map(|(name, json)| (Cow::Borrowed(&**name), json.as_str()))
                .collect(),
        }
    }

    /// The JSON text of a name's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = match self {
            Self::Text(text) => {
                walk::entries(text).filter(|(known, _)| known == name).map(|(_, json)| json).last()
            }
            Self::Entries(fields) => {
                fields.iter().find(|(known, _)| known == name).map(|(_, json)| json.as_str())
            }
        };
        found.filter(|json| *json != "null")
    }

    /// The JSON texts of the values of some names.
    pub fn get_all<const N: usize>(&self, names: [&str; N]) -> [Option<&str>; N] {
        let Self::Text(text) = self else {
            return names.map(|name| self.get(name));
        };
        let mut found = [None; N];
        for (known, json) in walk::entries(text) {
            if let Some(place) = names.iter().position(|name| known == *name) {
                found[place] = Some(json);
            }
        }
        found.map(|json| json.filter(|json| *json != "null"))
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(_) => self.open().is_empty(),
            Self::Entries(fields) => fields.iter().all(|(_, json)| json.is_null()),
        }
    }

    /// Replaces halves of surrogate pairs, in names and in values.
    pub(super) fn mend(&mut self) {
        match self {
            Self::Text(text) => {
                if let Cow::Owned(mended) = mended(text) {
                    let entries = Object::Text(&mended).into_fields();
                    let owned = entries
                        .into_iter()
                        .map(|(name, json)| (Cow::Owned(name.into_owned()), json.into_owned()));
                    *self = Self::Entries(owned.collect());
                }
            }
            // Names are text already, in which no half of a pair can stand.
            Self::Entries(fields) => {
                for (_, json) in fields {
                    if let Cow::Owned(mended) = mended(json.as_str()) {
                        *json = Json::trusted(mended);
                    }
                }
            }
        }
    }

    /// The entries, to be changed. No nulls are among them.
    pub fn into_fields(self) -> Fields<'a> {
        match self {
            Self::Text(text) => {
                opened(text).into_iter().map(|(name, json)| (name, Json::trusted(json))).collect()
            }
            Self::Entries(mut fields) => {
                fields.retain(|(_, json)| !json.is_null());
                fields
            }
        }
    }
}

/// The entries of an object's text, as [`Object::open`] tells them.
fn opened(text: &str) -> Opened<'_> {
    let mut opened = unique(text);
    opened.retain(|(_, json)| *json != "null");
    opened
}

/// The same with the nulls.
pub fn unique(text: &str) -> Opened<'_> {
    let mut unique = Opened::new();
    collect(walk::entries(text), &mut unique);
    unique
}

/// Shows the entries of an object's text, as [`Object::open`] tells them.
pub fn each<'r>(text: &'r str, mut show: impl FnMut(Cow<'r, str>, &'r str)) {
    let mut entries = SmallVec::<[(&str, &str); 16]>::new();
    let mut all_plain = true;
    let plain = walk::entries(text).map_while(|(name, json)| match name {
        Cow::Borrowed(name) => Some((name, json)),
        Cow::Owned(_) => {
            all_plain = false;
            None
        }
    });
    collect(plain, &mut entries);
    if all_plain {
        for (name, json) in entries.into_iter().filter(|(_, json)| *json != "null") {
            show(Cow::Borrowed(name), json);
        }
    } else {
        opened(text).into_iter().for_each(|(name, json)| show(name, json));
    }
}

/// Puts entries into a list; of equal names the last value stands in the first one's place.
fn collect<'r, N: AsRef<str>, const INLINE: usize>(
    entries: impl Iterator<Item = (N, &'r str)>,
    into: &mut SmallVec<[(N, &'r str); INLINE]>,
) {
    let mut names = Names::default();
    for (name, json) in entries {
        match names.enter(name.as_ref(), |place| into[place].0.as_ref()) {
            Some(place) => into[place].1 = json,
            None => into.push((name, json)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_is_opened() {
        // One after the other, with names as they stand or with escapes in them, the entries are those
        // of the opened object.
        for text in [
            r#"{"a":1,"b":null,"a":[2],"c":{"d":3}}"#,
            r#"{"a":1,"\u0061":2,"b":3,"b":null," ":"x"}"#,
            r#"{ "only\n" : "x" , "only" : 1 }"#,
            "{}",
        ] {
            let mut shown = Vec::new();
            each(text, |name, json| shown.push((name.into_owned(), json)));
            let object = Object::Text(text);
            let opened = object.open().into_iter().map(|(name, json)| (name.into_owned(), json));
            assert!(shown.into_iter().eq(opened), "{text}");
        }
    }

    #[test]
    fn text_and_entries_are_one_object() {
        // The last of equal names counts in the first one's place, and a null is no entry.
        let text =
            Object::Text(r#"{"a": 1, "b\u0063":[2], "n":null, "a":{"x":3}, "c":4, "c":null}"#);
        let entries = Object::Entries(vec![
            ("a".into(), Json::trusted(r#"{"x":3}"#)),
            ("bc".into(), Json::trusted("[2]")),
            ("z".into(), Json::trusted("null")),
        ]);
        assert_eq!(text, entries);
        assert_eq!(text.get("bc"), Some("[2]"));
        assert_eq!((text.get("n"), text.get("c"), text.get("q")), (None, None, None));
        for object in [&text, &entries] {
            assert_eq!(object.get_all(["c", "a", "bc"]), [None, Some(r#"{"x":3}"#), Some("[2]")]);
        }
        assert!(!text.is_empty() && Object::Text("{ }").is_empty());
        assert_eq!(text.clone().into_fields().len(), 2);
        assert_eq!(Object::Entries(text.into_fields()), entries);
    }
}
