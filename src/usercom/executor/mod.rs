//! The executor: carries out one op with as few requests as possible.
//!
//! # Invariants
//!
//! The caller ensures that the ops of one user come one at a time; ops on companies, which many
//! users share, are serialised here.

mod adoption;
mod body;
mod companies;
mod events_and_views;
mod history;
mod history_lag;
mod history_snapshots;
mod history_zone;
mod matching;
mod person_search;
mod refused_properties;
mod resolve;
mod throttled;
mod unseen;
mod users;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use self::matching::OpUser;
use self::resolve::Refused;
use super::attributes::{AttributeOwner, Catalogue, Creation};
use super::confirmed_fields::ConfirmedFieldHashes;
use super::endpoint;
use super::identity::SearchAvailability;
use super::keyed_mutex::KeyedLocks;
use super::new_users::NewUserEstimator;
use super::outcome::{ExecuteError, ExecutorObserver, OpSuccess, PriorSend};
use super::profile_cache::ProfileCache;
use super::visibility::Visibility;
use crate::clock;
use crate::config::account::AccountConfig;
use crate::config::sink::{AttributeTypes, DeliveryConfig, UsersConfig};
use crate::deliver::{ApiReply, Attempts, BeforeSend, Need, Request, SendError, Transport};
use crate::schedule::{Op, PackedFields};

/// How long, in seconds, a membership that was just confirmed is not requested again, whatever the
/// settings say.
const JUST_SEEN: u64 = 60;

/// A cheap read that every valid key may make: the first page of the attributes.
pub fn key_check() -> Request {
    endpoint::needed(endpoint::attributes::list(), Need::FirstContact)
}

/// Carries out ops at User.com and caches what it learned.
pub struct OpExecutor {
    transport: Arc<dyn Transport>,
    users: UsersConfig,
    delivery: DeliveryConfig,
    /// What is known of the account.
    account: AccountConfig,
    probe: Arc<dyn ExecutorObserver>,
    catalogue: Catalogue,
    memory: ProfileCache,
    /// Estimates whether an unknown user is new.
    new_users: NewUserEstimator,
    /// Histories that show what earlier processes sent.
    snapshots: history_snapshots::Snapshots,
    /// Properties of events that User.com refuses.
    refused_properties: refused_properties::RefusedProperties,
    /// Whether events that were answered with 429 have to be looked up.
    throttled: throttled::ThrottledLookups,
    /// How soon User.com shows its writes.
    visibility: Visibility,
    /// How long histories take to show what was sent.
    history_lag: history_lag::HistoryLag,
    /// The zone offset of times without a zone in histories.
    zone: history_zone::HistoryZone,
    /// Whether User.com said that it does not update companies by external id.
    no_company_update_by_own_id: AtomicBool,
    /// Whether it was logged that memberships are refused without a reason.
    logged_unknown_membership: AtomicBool,
    /// One op at a time per company.
    company_turns: KeyedLocks<Box<str>>,
    /// One look-up and first write at a time per key of a person.
    key_turns: KeyedLocks<u64>,
    /// Whether User.com answers searches for a person.
    searches: SearchAvailability,
}

impl OpExecutor {
    /// An executor with empty caches.
    pub fn new(
        transport: Arc<dyn Transport>,
        users: UsersConfig,
        delivery: DeliveryConfig,
        probe: Arc<dyn ExecutorObserver>,
    ) -> Self {
        Self {
            catalogue: Catalogue::new(Duration::from_secs(users.catalogue_refresh_secs)),
            memory: ProfileCache::new(users.cache_size),
            new_users: NewUserEstimator::even(),
            snapshots: history_snapshots::Snapshots::default(),
            refused_properties: refused_properties::RefusedProperties::default(),
            throttled: throttled::ThrottledLookups::default(),
            visibility: visibility(&AccountConfig::default()),
            history_lag: history_lag::HistoryLag::default(),
            account: AccountConfig::default(),
            zone: history_zone::HistoryZone::default(),
            no_company_update_by_own_id: AtomicBool::new(false),
            logged_unknown_membership: AtomicBool::new(false),
            company_turns: KeyedLocks::default(),
            key_turns: KeyedLocks::default(),
            searches: SearchAvailability::default(),
            transport,
            users,
            delivery,
            probe,
        }
    }

    /// The same with the types of attributes that are created, for users and for companies.
    #[must_use]
    pub fn with_types(mut self, users: &AttributeTypes, companies: &AttributeTypes) -> Self {
        self.catalogue.declare(users, companies);
        self
    }

    /// The same with facts of the account.
    #[must_use]
    pub fn with_account(mut self, account: &AccountConfig) -> Self {
        self.visibility = visibility(account);
        self.account = *account;
        self.catalogue.unknown(account.unknown_attribute);
        self
    }

    /// Reads the catalogue of attributes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn open(&self) -> Result<(), ExecuteError> {
        let mut attempts = Attempts::default();
        self.catalogue.open(&*self.transport, &mut attempts).await
    }

    /// Makes one cheap authenticated read: the first page of the attributes.
    ///
    /// # Errors
    ///
    /// When it is refused; the reason says what to do.
    pub async fn healthcheck(&self) -> Result<(), ExecuteError> {
        let mut attempts = Attempts::default();
        let reply = self.send(&key_check(), &mut attempts).await?;
        if reply.is_success() {
            return Ok(());
        }
        let refusal = ExecuteError::refused("the health check", &reply);
        let cure = refusal.remediation();
        match refusal {
            ExecuteError::Reject { status, reason, body } => {
                Err(ExecuteError::Reject { status, reason: format!("{reason}: {cure}"), body })
            }
            failure => Err(failure),
        }
    }

    /// Carries out one op. `attempts` counts the requests that it takes.
    ///
    /// # Errors
    ///
    /// [`ExecuteError::Reject`] if User.com will never accept it, [`ExecuteError::Send`] if there
    /// is no final response.
    pub async fn execute(
        &self,
        op: &Op,
        doubt: PriorSend,
        attempts: &mut Attempts,
    ) -> Result<OpSuccess, ExecuteError> {
        self.execute_noted(op, doubt, &Unnoted, attempts).await
    }

    /// The same. `before` is called before each request that counts: an event or a page view.
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute).
    pub async fn execute_noted(
        &self,
        op: &Op,
        doubt: PriorSend,
        before: &dyn BeforeSend,
        attempts: &mut Attempts,
    ) -> Result<OpSuccess, ExecuteError> {
        let now = clock::now();
        match op {
            Op::Identify { user, fields, keys } => {
                let user = OpUser { id: user.as_str(), keys };
                self.identify(user, fields, now, attempts).await
            }
            Op::Track { user, name, at, data, keys } => {
                let user = OpUser { id: user.as_str(), keys };
                let event = events_and_views::PendingEvent { name, at: at.unwrap_or(now), data };
                Box::pin(self.track(user, event, doubt, before, attempts)).await
            }
            Op::Page { user, domain, path, at, keys } => {
                let user = OpUser { id: user.as_str(), keys };
                let view = endpoint::site_views::View { domain, path, at: at.unwrap_or(now) };
                Box::pin(self.page(user, view, doubt, before, attempts)).await
            }
            Op::Company { company, fields } => {
                Box::pin(self.company(company.as_str(), fields, now, attempts)).await
            }
            Op::Join { user, company, fields, keys } => {
                let user = OpUser { id: user.as_str(), keys };
                Box::pin(self.join(user, company.as_str(), fields, now, attempts)).await
            }
            Op::Merge { from, into } => {
                Box::pin(self.merge(from.as_str(), into.as_str(), attempts)).await
            }
        }
    }

    /// Whether an op would change nothing that was confirmed within `users.unchanged_ttl_secs`, so
    /// that no request is needed. Always `false` for events and page views.
    pub fn unchanged(&self, op: &Op, now: Timestamp) -> bool {
        let ttl = self.users.unchanged_ttl_secs;
        match op {
            Op::Identify { user, fields, .. } => {
                let row = self.memory.user(user.as_str());
                row.is_some_and(|row| {
                    self.says_nothing_new(AttributeOwner::User, fields, &row.fields, now)
                })
            }
            Op::Company { company, fields } => {
                let row = self.memory.company(company.as_str());
                row.is_some_and(|row| {
                    self.says_nothing_new(AttributeOwner::Company, fields, &row.fields, now)
                })
            }
            Op::Join { user, company, fields, .. } => {
                let row = self.memory.user(user.as_str());
                self.is_member(user.as_str(), company.as_str(), now, ttl)
                    && row.is_some_and(|row| {
                        self.says_nothing_new(AttributeOwner::User, fields, &row.fields, now)
                    })
            }
            Op::Merge { from, into } => self.memory.is_merged(from.as_str(), into.as_str()),
            Op::Track { .. } | Op::Page { .. } => false,
        }
    }

    /// Whether everything that a write contains, with the current catalogue, was confirmed. Values
    /// that are dropped are reported then, because no request reports them.
    fn says_nothing_new(
        &self,
        content: AttributeOwner,
        fields: &PackedFields,
        confirmed: &ConfirmedFieldHashes,
        now: Timestamp,
    ) -> bool {
        let ttl = self.users.unchanged_ttl_secs;
        // Without the catalogue the types of attribute values are not known.
        if ttl == 0 || (body::has_attributes(fields) && !self.catalogue.was_read()) {
            return false;
        }
        let resolved = self.resolve(content, fields, &Refused::default());
        let nothing_new =
            resolved.missing.is_empty() && confirmed.holds(&resolved.facts(), now, ttl);
        if nothing_new {
            resolved.report_to(&*self.probe);
        }
        nothing_new
    }

    /// Whether User.com refused this value of this field within `users.unchanged_ttl_secs`: then it
    /// is not sent again with every write.
    fn was_refused(
        &self,
        content: AttributeOwner,
        name: &str,
        id: Option<u64>,
        json: &str,
    ) -> bool {
        let ttl = self.users.unchanged_ttl_secs;
        ttl > 0 && self.memory.refused((content.as_str(), name, id, json), clock::now(), ttl)
    }

    fn note_refused(&self, content: AttributeOwner, name: &str, id: Option<u64>, json: &str) {
        self.memory.note_refused((content.as_str(), name, id, json), clock::now());
    }

    /// Whether another attribute may be created within this hour.
    fn may_create(&self) -> bool {
        self.memory.creations_within_an_hour(clock::now()) < self.users.new_attributes_limit()
    }

    /// Creates an attribute, unless too many were created within this hour.
    async fn create_attribute(
        &self,
        content: AttributeOwner,
        name: &str,
        attempts: &mut Attempts,
    ) -> Result<Creation, ExecuteError> {
        let limit = self.users.new_attributes_limit();
        let book = || self.memory.book_creation(limit, clock::now());
        let (transport, probe) = (&*self.transport, &*self.probe);
        self.catalogue.create(content, name, transport, attempts, probe, book).await
    }

    /// Up to `max` rows of the cache that changed since the last call, as key and JSON, for a
    /// store; `None` for a row that was removed.
    pub fn take_changes(&self, max: usize) -> Vec<(String, Option<String>)> {
        self.memory.take_changes(max)
    }

    /// Loads stored rows. Rows that cannot be parsed are skipped.
    pub fn restore(&self, rows: impl IntoIterator<Item = (String, String)>) {
        self.memory.restore(rows);
    }

    /// Whether User.com answered any request successfully in the last half minute.
    pub fn is_alive(&self) -> bool {
        self.transport.is_alive()
    }

    async fn send(
        &self,
        request: &Request,
        attempts: &mut Attempts,
    ) -> Result<ApiReply, SendError> {
        self.transport.send(request, attempts).await
    }
}

fn visibility(account: &AccountConfig) -> Visibility {
    Visibility::new(Duration::from_secs(account.read_after_write_secs))
}

/// Stores nothing before a request is sent.
struct Unnoted;

#[async_trait]
impl BeforeSend for Unnoted {
    async fn before_send(&self) -> Result<(), SendError> {
        Ok(())
    }

    fn not_sent(&self) {}
}
