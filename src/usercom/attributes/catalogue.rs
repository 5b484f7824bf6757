//! The catalogue: which custom attributes User.com has, and the creation of missing ones.
//!
//! # Invariants
//!
//! One attribute is created once, however many ops need it at the same time. A listing that was
//! being read while an attribute was created does not remove it from the catalogue.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::ValueType;
use crate::config::account::UnknownAttributeAnswer;
use crate::config::sink::{AttributeType, AttributeTypes};
use crate::deliver::{ApiReply, Attempts, Need, SendError, Transport};
use crate::usercom::endpoint::{self, attributes as wire};
use crate::usercom::keyed_mutex::KeyedLocks;
use crate::usercom::outcome::{ExecuteError, ExecutorObserver};
use crate::usercom::profile::limits::{name_std, std_form};

/// Pages of definitions that are read at most: a list may have no end.
const MAX_PAGES: usize = 1_000;
/// How long a created attribute counts as present although a listing does not show it yet.
const VISIBILITY_DELAY: Duration = Duration::from_secs(60);

/// The owner of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::usercom) enum AttributeOwner {
    /// A user's.
    User,
    /// A company's.
    Company,
}

impl AttributeOwner {
    /// The name under which it is created.
    pub(in crate::usercom) fn as_str(self) -> &'static str {
        match self {
            Self::User => "clientuser",
            Self::Company => "company",
        }
    }

    /// Parses the name, in upper or lower case; old responses call a `clientuser` a `user`.
    pub(in crate::usercom) fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "clientuser" | "user" => Some(Self::User),
            "company" => Some(Self::Company),
            _ => None,
        }
    }
}

/// A definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::usercom) struct Attribute {
    /// Its id, if User.com sends it: an attribute that was deleted and created again has another
    /// one.
    pub(in crate::usercom) id: Option<u64>,
    /// The display name.
    pub(in crate::usercom) name: Box<str>,
    /// The name in request bodies.
    pub(in crate::usercom) name_std: Box<str>,
    /// Its type.
    pub(in crate::usercom) value_type: ValueType,
}

/// The state of a name.
#[derive(Debug, Clone)]
pub(in crate::usercom) enum AttributeState {
    /// It is defined.
    Known(Arc<Attribute>),
    /// User.com refused to create it; the creation is tried again after the next listing.
    Refused,
}

/// The result of a request for an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::usercom) enum Creation {
    /// It exists.
    Known,
    /// User.com refuses it.
    Refused,
    /// Too many were created recently.
    TooMany,
}

type AttributeKey = (AttributeOwner, String);

/// By owner, then by name, so that a look-up allocates no string.
#[derive(Default)]
struct AttributeStates {
    users: HashMap<String, AttributeState>,
    companies: HashMap<String, AttributeState>,
}

impl AttributeStates {
    fn of(&self, content: AttributeOwner) -> &HashMap<String, AttributeState> {
        match content {
            AttributeOwner::User => &self.users,
            AttributeOwner::Company => &self.companies,
        }
    }

    fn of_mut(&mut self, content: AttributeOwner) -> &mut HashMap<String, AttributeState> {
        match content {
            AttributeOwner::User => &mut self.users,
            AttributeOwner::Company => &mut self.companies,
        }
    }
}

#[derive(Default)]
struct CatalogState {
    slots: AttributeStates,
    /// The attributes that this process created, and when; removed after the visibility delay.
    recently_created: HashMap<AttributeKey, Instant>,
    /// Attributes that exist but are not listed in a form that can be parsed. Each listing keeps
    /// them; otherwise values of records in flight would be dropped.
    unlisted: HashSet<AttributeKey>,
    read_at: Option<Instant>,
}

/// The attributes of users and companies.
pub(in crate::usercom) struct Catalogue {
    names: RwLock<CatalogState>,
    refresh: Duration,
    /// Held while the list is read.
    reading: tokio::sync::Mutex<()>,
    /// A lock for every attribute that is being created.
    creating: KeyedLocks<AttributeKey>,
    /// The types of attributes that will be created, if they are not text.
    declared: HashMap<AttributeKey, AttributeType>,
    /// What becomes of attributes of users that a write names and that do not exist.
    unknown: UnknownAttributeAnswer,
    /// Attributes for which the log has a warning about a type other than the declared one.
    told: Mutex<HashSet<AttributeKey>>,
}

/// Whether a creation is refused because the attribute exists already.
fn says_it_exists(reply: &ApiReply) -> bool {
    let body = String::from_utf8_lossy(&reply.body).to_ascii_lowercase();
    matches!(reply.status, 400 | 409) && (body.contains("exist") || body.contains("unique"))
}

impl Catalogue {
    /// A catalogue that was not read yet and is read again every `refresh`.
    pub(in crate::usercom) fn new(refresh: Duration) -> Self {
        Self {
            names: RwLock::default(),
            refresh,
            reading: tokio::sync::Mutex::default(),
            creating: KeyedLocks::default(),
            declared: HashMap::new(),
            unknown: UnknownAttributeAnswer::default(),
            told: Mutex::default(),
        }
    }

    /// Sets the types of attributes that will be created.
    pub(in crate::usercom) fn declare(
        &mut self,
        users: &AttributeTypes,
        companies: &AttributeTypes,
    ) {
        let both = [(AttributeOwner::User, users), (AttributeOwner::Company, companies)];
        for (content, types) in both {
            let types = types.iter().map(|(name, is)| ((content, name_std(name)), *is));
            self.declared.extend(types);
        }
    }

    /// Takes what becomes of attributes that a write names and that do not exist.
    pub(in crate::usercom) fn unknown(&mut self, answer: UnknownAttributeAnswer) {
        self.unknown = answer;
    }

    /// The type with which an attribute is created.
    pub(in crate::usercom) fn declared(
        &self,
        content: AttributeOwner,
        name: &str,
    ) -> AttributeType {
        if self.declared.is_empty() {
            return AttributeType::default();
        }
        self.declared.get(&(content, name_std(name))).copied().unwrap_or_default()
    }

    /// Whether the list was read at all.
    pub(in crate::usercom) fn was_read(&self) -> bool {
        self.read_at().is_some()
    }

    /// The state of a name.
    pub(in crate::usercom) fn get(
        &self,
        content: AttributeOwner,
        name: &str,
    ) -> Option<AttributeState> {
        let names = self.names.read();
        names.slots.of(content).get(&*std_form(name)).cloned()
    }

    /// Reads the list if it was never read, or is too old and no other task is reading it.
    ///
    /// # Errors
    ///
    /// When the first reading fails. After a later failure the old list remains in use.
    pub(in crate::usercom) async fn ensure(
        &self,
        transport: &dyn Transport,
        attempts: &mut Attempts,
    ) -> Result<(), ExecuteError> {
        let asked = Instant::now();
        match self.read_at() {
            None => {
                let _reading = self.reading.lock().await;
                if self.read_at().is_none() {
                    self.read(Need::Required, transport, attempts).await?;
                }
            }
            Some(read_at) if asked.duration_since(read_at) >= self.refresh => {
                let Ok(_reading) = self.reading.try_lock() else {
                    return Ok(());
                };
                if self.read_at() == Some(read_at)
                    && let Err(error) = self.read(Need::Required, transport, attempts).await
                {
                    tracing::warn!(
                        %error,
                        "User.com's list of attributes cannot be read again: the former list stays in \
                         use, and it is read again later. Nothing need be done"
                    );
                    self.write().read_at = Some(asked);
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Reads the list now; one reading serves all callers that asked before it began.
    ///
    /// # Errors
    ///
    /// When the list cannot be read.
    pub(in crate::usercom) async fn reread(
        &self,
        transport: &dyn Transport,
        attempts: &mut Attempts,
    ) -> Result<(), ExecuteError> {
        let asked = Instant::now();
        let _reading = self.reading.lock().await;
        // The stored time is the beginning of the reading.
        if self.read_at().is_some_and(|read_at| read_at > asked) {
            return Ok(());
        }
        self.read(Need::Required, transport, attempts).await
    }

    /// Reads the list as the first request to a server.
    ///
    /// # Errors
    ///
    /// When the list cannot be read, or the response is not from the API.
    pub(in crate::usercom) async fn open(
        &self,
        transport: &dyn Transport,
        attempts: &mut Attempts,
    ) -> Result<(), ExecuteError> {
        let _reading = self.reading.lock().await;
        self.read(Need::FirstContact, transport, attempts).await
    }

    /// Finds or creates an attribute. `book` returns whether one more may be created.
    ///
    /// # Errors
    ///
    /// When there is no response.
    pub(in crate::usercom) async fn create(
        &self,
        content: AttributeOwner,
        name: &str,
        transport: &dyn Transport,
        attempts: &mut Attempts,
        probe: &dyn ExecutorObserver,
        book: impl FnOnce() -> bool + Send,
    ) -> Result<Creation, ExecuteError> {
        let key = (content, name_std(name));
        let _turn = self.creating.turn(key.clone()).await;
        match self.get(content, name) {
            Some(AttributeState::Known(_)) => Ok(Creation::Known),
            Some(AttributeState::Refused) => Ok(Creation::Refused),
            None if !book() => Ok(Creation::TooMany),
            None => self.create_alone(&key, name, transport, attempts, probe).await,
        }
    }

    async fn create_alone(
        &self,
        key: &AttributeKey,
        name: &str,
        transport: &dyn Transport,
        attempts: &mut Attempts,
        probe: &dyn ExecutorObserver,
    ) -> Result<Creation, ExecuteError> {
        let value_type = self.declared(key.0, name);
        let by_the_write = self.unknown == UnknownAttributeAnswer::Created
            && key.0 == AttributeOwner::User
            && value_type == AttributeType::String;
        if by_the_write {
            self.add(key, Arc::new(asked_for(key, name, value_type)));
            probe.attribute_created(name, value_type.as_str());
            return Ok(Creation::Known);
        }
        let request = wire::create(name, key.0, value_type);
        let reply = match transport.send(&request, attempts).await {
            // No record gets this attribute: records are sent without it.
            Err(error @ SendError::Poison { .. }) => {
                tracing::warn!(
                    attribute = ?name, of = key.0.as_str(), %error,
                    "the attribute cannot be created: its values are dropped from all records. Create \
                     it at User.com, or remove it from the mapping"
                );
                self.write().slots.of_mut(key.0).insert(key.1.clone(), AttributeState::Refused);
                return Ok(Creation::Refused);
            }
            answer => answer?,
        };
        if reply.is_success() {
            let attribute = Arc::new(created(&reply, key, name, value_type));
            self.add(key, attribute);
            probe.attribute_created(name, value_type.as_str());
            return Ok(Creation::Known);
        }
        // Most likely another process created it: then it is in the list.
        self.reread(transport, attempts).await?;
        match self.get(key.0, name) {
            Some(AttributeState::Known(_)) => Ok(Creation::Known),
            _ if says_it_exists(&reply) => {
                tracing::warn!(
                    attribute = ?name,
                    "User.com says that the attribute exists, but its list of attributes does not \
                     show it in a form that can be read: values are sent as the type that the \
                     settings name, else as text. Nothing need be done"
                );
                let attribute = Arc::new(created(&reply, key, name, value_type));
                let mut names = self.write();
                let slots = names.slots.of_mut(key.0);
                slots.insert(key.1.clone(), AttributeState::Known(attribute));
                names.unlisted.insert(key.clone());
                Ok(Creation::Known)
            }
            _ => {
                let refused = ExecuteError::refused("to create an attribute", &reply);
                tracing::warn!(
                    attribute = ?name, of = key.0.as_str(), status = reply.status, error = ?refused,
                    "User.com refuses to create the attribute: its values are dropped from all \
                     records. Create it at User.com, or remove it from the mapping"
                );
                self.write().slots.of_mut(key.0).insert(key.1.clone(), AttributeState::Refused);
                Ok(Creation::Refused)
            }
        }
    }

    /// Adds an attribute that was just created.
    fn add(&self, key: &AttributeKey, attribute: Arc<Attribute>) {
        let mut names = self.write();
        let now = Instant::now();
        for key in [key.clone(), (key.0, name_std(&attribute.name_std))] {
            let slot = AttributeState::Known(Arc::clone(&attribute));
            names.slots.of_mut(key.0).insert(key.1.clone(), slot);
            names.recently_created.insert(key, now);
        }
    }

    /// Reads all pages. The caller holds `reading`.
    async fn read(
        &self,
        need: Need,
        transport: &dyn Transport,
        attempts: &mut Attempts,
    ) -> Result<(), ExecuteError> {
        let began = Instant::now();
        let mut slots = AttributeStates::default();
        let mut request = endpoint::needed(wire::list(), need);
        let mut asked = HashSet::new();
        for page_number in 0..MAX_PAGES {
            let reply = transport.send(&request, attempts).await?;
            // The last page may name a next one that does not exist.
            if reply.status == 404 && page_number > 0 {
                break;
            }
            if !reply.is_success() {
                return Err(ExecuteError::refused("to list its attributes", &reply));
            }
            let page = endpoint::page(&reply, &request.path);
            for (content, attribute) in page.results.iter().filter_map(wire::definition) {
                let attribute = Arc::new(attribute);
                for name in [&attribute.name, &attribute.name_std] {
                    let slot = AttributeState::Known(Arc::clone(&attribute));
                    slots.of_mut(content).insert(name_std(name), slot);
                }
            }
            match page.next {
                Some(next) if asked.insert(next.clone()) => request = wire::list_page(next),
                _ => break,
            }
        }
        self.tell_other_types(&slots);
        self.replace(slots, began);
        Ok(())
    }

    /// Logs once per attribute that it has another type than the settings name.
    fn tell_other_types(&self, slots: &AttributeStates) {
        for (key, declared) in &self.declared {
            let Some(AttributeState::Known(attribute)) = slots.of(key.0).get(&key.1) else {
                continue;
            };
            let wanted = ValueType::parse(declared.as_str(), &serde_json::Value::Null, false);
            let mut told = self.told.lock();
            if attribute.value_type != wanted && told.insert(key.clone()) {
                tracing::warn!(
                    attribute = ?key.1, of = key.0.as_str(), declared = declared.as_str(),
                    account = attribute.value_type.as_str(),
                    "the attribute has another type at User.com than the settings name; values are \
                     converted to the type it has there, and those that do not fit are dropped; \
                     name that type, or delete the attribute at User.com so that it is created again"
                );
            }
        }
    }

    fn replace(&self, slots: AttributeStates, began: Instant) {
        let mut names = self.write();
        let CatalogState { slots: present, recently_created, unlisted, .. } = &mut *names;
        recently_created.retain(|_, recently_created| *recently_created + VISIBILITY_DELAY > began);
        let mut old = std::mem::replace(present, slots);
        for (content, name) in recently_created.keys().chain(unlisted.iter()) {
            if let Some((name, slot)) = old.of_mut(*content).remove_entry(name) {
                present.of_mut(*content).entry(name).or_insert(slot);
            }
        }
        names.read_at = Some(began);
    }

    fn read_at(&self) -> Option<Instant> {
        self.names.read().read_at
    }

    fn write(&self) -> parking_lot::RwLockWriteGuard<'_, CatalogState> {
        self.names.write()
    }
}

/// The definition in a creation's response; what the response lacks is as requested.
fn created(
    reply: &ApiReply,
    key: &AttributeKey,
    name: &str,
    value_type: AttributeType,
) -> Attribute {
    match wire::definition(&endpoint::json(reply)) {
        Some((content, attribute)) if content == key.0 => attribute,
        _ => asked_for(key, name, value_type),
    }
}

/// An attribute as its creation asks for it.
fn asked_for(key: &AttributeKey, name: &str, value_type: AttributeType) -> Attribute {
    Attribute {
        id: None,
        name: name.into(),
        name_std: key.1.as_str().into(),
        value_type: ValueType::parse(value_type.as_str(), &serde_json::Value::Null, false),
    }
}
