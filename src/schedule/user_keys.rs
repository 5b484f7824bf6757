//! What a call says of a user in addition to the external id, in a form in which equal values are
//! equal texts. The executor looks a person up by it before the first write for an external id.

/// A kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// The key of the browser's cookie.
    UserKey,
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
}

/// The keys of one call; of each kind at most one. Most calls have none, which takes one word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserKeys(Option<Box<[Option<Box<str>>; 3]>>);

impl UserKeys {
    /// Sets a key.
    pub fn set(&mut self, kind: KeyKind, value: impl Into<Box<str>>) {
        self.0.get_or_insert_default()[kind as usize] = Some(value.into());
    }

    /// The key of a kind.
    pub fn get(&self, kind: KeyKind) -> Option<&str> {
        self.0.as_ref()?[kind as usize].as_deref()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds the keys of a later call where this one has none of their kind.
    pub(super) fn fill(&mut self, later: &Self) {
        let Some(later) = &later.0 else {
            return;
        };
        let own = self.0.get_or_insert_default();
        for (own, later) in own.iter_mut().zip(later.iter()) {
            if own.is_none() {
                own.clone_from(later);
            }
        }
    }
}
