//! An object of a call: traits, properties or context.
//!
//! Most objects are copied from the record unchanged. They stay text until an entry is needed.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::json::{Json, replace_lone_surrogates};
use super::json_scan;
use super::name_index::NameIndex;

/// Named JSON values in the order they were set. Names are unique: the mapping sees to it.
pub type Fields<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

/// The entries of an object: names unique, in order, no nulls.
pub type ObjectEntries<'o> = SmallVec<[(Cow<'o, str>, &'o str); 12]>;

/// An object's entries.
#[derive(Debug, Clone)]
pub enum Object<'a> {
    /// The text of a JSON object of the record. Of a repeated name the last value counts, at the
    /// first one's position; null is the same as missing.
    Raw(&'a str),
    /// Entries that were put together; null is the same as missing here, too.
    Parsed(Fields<'a>),
}

impl Default for Object<'_> {
    fn default() -> Self {
        Self::Parsed(Vec::new())
    }
}

/// The same entries in the same order.
impl PartialEq for Object<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

impl<'a> Object<'a> {
    /// The entries.
    pub fn entries(&self) -> ObjectEntries<'_> {
        match self {
            Self::Raw(text) => non_null_entries(text),
            Self::Parsed(fields) => fields
                .iter()
                .filter(|(_, json)| !json.is_null())
                .map(|(name, json)| (Cow::Borrowed(&**name), json.as_str()))
                .collect(),
        }
    }

    /// The JSON text of a name's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = match self {
            Self::Raw(text) => json_scan::entries(text)
                .filter(|(known, _)| known == name)
                .map(|(_, json)| json)
                .last(),
            Self::Parsed(fields) => {
                fields.iter().find(|(known, _)| known == name).map(|(_, json)| json.as_str())
            }
        };
        found.filter(|json| *json != "null")
    }

    /// The JSON texts of the values of some names.
    pub fn get_all<const N: usize>(&self, names: [&str; N]) -> [Option<&str>; N] {
        let Self::Raw(text) = self else {
            return names.map(|name| self.get(name));
        };
        let mut found = [None; N];
        for (known, json) in json_scan::entries(text) {
            if let Some(place) = names.iter().position(|name| known == *name) {
                found[place] = Some(json);
            }
        }
        found.map(|json| json.filter(|json| *json != "null"))
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Raw(_) => self.entries().is_empty(),
            Self::Parsed(fields) => fields.iter().all(|(_, json)| json.is_null()),
        }
    }

    /// Replaces lone surrogates in names and values.
    pub(super) fn replace_lone_surrogates(&mut self) {
        match self {
            Self::Raw(text) => {
                if let Cow::Owned(mended) = replace_lone_surrogates(text) {
                    let entries = Object::Raw(&mended).into_fields();
                    let owned = entries
                        .into_iter()
                        .map(|(name, json)| (Cow::Owned(name.into_owned()), json.into_owned()));
                    *self = Self::Parsed(owned.collect());
                }
            }
            // Names are strings already and cannot contain half of a pair.
            Self::Parsed(fields) => {
                for (_, json) in fields {
                    if let Cow::Owned(mended) = replace_lone_surrogates(json.as_str()) {
                        *json = Json::from_valid_unchecked(mended);
                    }
                }
            }
        }
    }

    /// The entries without nulls, owned.
    pub fn into_fields(self) -> Fields<'a> {
        match self {
            Self::Raw(text) => non_null_entries(text)
                .into_iter()
                .map(|(name, json)| (name, Json::from_valid_unchecked(json)))
                .collect(),
            Self::Parsed(mut fields) => {
                fields.retain(|(_, json)| !json.is_null());
                fields
            }
        }
    }
}

/// The entries of an object's text, as [`Object::entries`] returns them.
fn non_null_entries(text: &str) -> ObjectEntries<'_> {
    let mut opened = unique_entries(text);
    opened.retain(|(_, json)| *json != "null");
    opened
}

/// The entries of an object's text, including nulls. Of a repeated name the last value counts.
pub fn unique_entries(text: &str) -> ObjectEntries<'_> {
    let mut unique = ObjectEntries::new();
    collect(json_scan::entries(text), &mut unique);
    unique
}

/// Calls `visit` for each entry of an object's text, as [`Object::entries`] returns them, with less
/// copying.
pub fn for_each_entry<'r>(text: &'r str, mut visit: impl FnMut(Cow<'r, str>, &'r str)) {
    let mut entries = SmallVec::<[(&str, &str); 16]>::new();
    let mut all_plain = true;
    let plain = json_scan::entries(text).map_while(|(name, json)| match name {
        Cow::Borrowed(name) => Some((name, json)),
        Cow::Owned(_) => {
            all_plain = false;
            None
        }
    });
    collect(plain, &mut entries);
    if all_plain {
        for (name, json) in entries.into_iter().filter(|(_, json)| *json != "null") {
            visit(Cow::Borrowed(name), json);
        }
    } else {
        non_null_entries(text).into_iter().for_each(|(name, json)| visit(name, json));
    }
}

/// Collects entries. Of a repeated name the last value counts, at the first one's position.
fn collect<'r, N: AsRef<str>, const INLINE: usize>(
    entries: impl Iterator<Item = (N, &'r str)>,
    into: &mut SmallVec<[(N, &'r str); INLINE]>,
) {
    let mut names = NameIndex::default();
    for (name, json) in entries {
        match names.get_or_insert(name.as_ref(), |place| into[place].0.as_ref()) {
            Some(place) => into[place].1 = json,
            None => into.push((name, json)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visited_entries_equal_collected_entries() {
        // Whether names have escapes or not, the visited entries equal those of the object.
        for text in [
            r#"{"a":1,"b":null,"a":[2],"c":{"d":3}}"#,
            r#"{"a":1,"\u0061":2,"b":3,"b":null," ":"x"}"#,
            r#"{ "only\n" : "x" , "only" : 1 }"#,
            "{}",
        ] {
            let mut visited = Vec::new();
            for_each_entry(text, |name, json| visited.push((name.into_owned(), json)));
            let object = Object::Raw(text);
            let opened = object.entries().into_iter().map(|(name, json)| (name.into_owned(), json));
            assert!(visited.into_iter().eq(opened), "{text}");
        }
    }

    #[test]
    fn raw_and_parsed_objects_are_equal() {
        // The last of equal names counts at the first one's position, and a null is not an entry.
        let text =
            Object::Raw(r#"{"a": 1, "b\u0063":[2], "n":null, "a":{"x":3}, "c":4, "c":null}"#);
        let entries = Object::Parsed(vec![
            ("a".into(), Json::from_valid_unchecked(r#"{"x":3}"#)),
            ("bc".into(), Json::from_valid_unchecked("[2]")),
            ("z".into(), Json::from_valid_unchecked("null")),
        ]);
        assert_eq!(text, entries);
        assert_eq!(text.get("bc"), Some("[2]"));
        assert_eq!((text.get("n"), text.get("c"), text.get("q")), (None, None, None));
        for object in [&text, &entries] {
            assert_eq!(object.get_all(["c", "a", "bc"]), [None, Some(r#"{"x":3}"#), Some("[2]")]);
        }
        assert!(!text.is_empty() && Object::Raw("{ }").is_empty());
        assert_eq!(text.clone().into_fields().len(), 2);
        assert_eq!(Object::Parsed(text.into_fields()), entries);
    }
}
