//! Facts of an account: what User.com does where its documentation does not say.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Facts of the account at User.com. `usercom-sink probe` finds them out by experiment, and
/// `probe --write facts.toml` writes them into a file for `run -c pipeline.toml -c facts.toml`. The
/// default of each fact is safe in every account; another value saves requests, or keeps more of
/// what a record says, in an account that is known to work this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccountConfig {
    /// How long, in seconds, User.com may take to show a user or a company that the sink has just
    /// written. A request that is answered 404 within this time is sent again, with growing pauses;
    /// after it, the user or company counts as deleted and is written again. What waits is records
    /// of this user or company only. 0 = a 404 is believed at once. Default: 30. Raise it where
    /// dead letters say that User.com does not show a user it has taken.
    pub read_after_write_secs: u64,
    /// What `company_custom_id` in the upsert of a user does. Default: `ignored`. With `joins` or
    /// `creates` a user becomes a member of a company by the upsert, together with waiting
    /// identifies, and the sink sends no `add_member`.
    pub company_in_upsert: CompanyInUpsert,
    /// By which field a page view names its user. Default: `user_key`, whose value the sink has to
    /// look up once for each user; every other value saves this look-up.
    pub page_view_user: PageViewUser,
    /// By which field `add_member` names the user. Default: `user_id`. With `user_custom_id` the
    /// sink needs no look-up of the user's number.
    pub member_user: MemberUser,
    /// By which id the path of `add_member` names the company. Default: `id`. With `custom_id` the
    /// sink needs no look-up of the company's number.
    pub member_company: MemberCompany,
    /// What the answer to the upsert of a user contains. Default: `id`. With `user_key` the sink
    /// writes a user that it does not know yet before the first page view, and needs no look-up of
    /// the key.
    pub upsert_answer: UpsertAnswer,
    /// What User.com does with a custom attribute in a write that does not exist yet. Default:
    /// `ignored`. With `created` the sink sends an attribute of type `string` without creating it
    /// first; `users.max_new_attributes_per_hour` holds all the same.
    pub unknown_attribute: UnknownAttributeAnswer,
    /// Whether ids (`custom_id`) that differ in upper and lower case only are different users.
    /// Default: `distinguished`. With `ignored` the sink writes ids of users and companies in lower
    /// case, so that the calls of one user keep their order and are one user in its cache.
    pub id_case: IdCase,
    /// The most characters of an id (`custom_id`), from 1 to 255. A record with a longer one goes
    /// to the dead letters. Default: 255.
    #[schemars(range(min = 1, max = 255))]
    pub id_max_length: u8,
    /// What `page_domain` of a page view contains. Default: `host`. Set `url` where User.com needs
    /// the whole URL there, as RudderStack sends it.
    pub page_domain: PageDomain,
    /// What User.com does with an event or page view whose time is in the future. Default:
    /// `refused`: the sink sends the present instead. With `kept` it sends the time as it is.
    pub future_times: FutureTimes,
}

impl AccountConfig {
    /// What is safe in every account.
    pub const SAFE: Self = Self {
        read_after_write_secs: 30,
        company_in_upsert: CompanyInUpsert::Ignored,
        page_view_user: PageViewUser::UserKey,
        member_user: MemberUser::UserId,
        member_company: MemberCompany::Id,
        upsert_answer: UpsertAnswer::Id,
        unknown_attribute: UnknownAttributeAnswer::Ignored,
        id_case: IdCase::Distinguished,
        id_max_length: 255,
        page_domain: PageDomain::Host,
        future_times: FutureTimes::Refused,
    };
}

impl Default for AccountConfig {
    fn default() -> Self {
        Self::SAFE
    }
}

/// What `company_custom_id` in the upsert of a user does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CompanyInUpsert {
    /// Nothing.
    #[default]
    Ignored,
    /// The user becomes a member of the company, if it exists, and stays a member of others.
    Joins,
    /// The same, and a company that does not exist is created.
    Creates,
    /// The user becomes a member of the company and leaves all others.
    Moves,
}

impl CompanyInUpsert {
    /// Whether an upsert can take the place of `add_member`.
    pub fn adds_members(self) -> bool {
        matches!(self, Self::Joins | Self::Creates)
    }
}

/// By which field a page view names its user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PageViewUser {
    /// `client_user` with User.com's key of the user.
    #[default]
    UserKey,
    /// `client_user` with your own id.
    ClientUser,
    /// `user_custom_id` with your own id.
    UserCustomId,
    /// `custom_id` with your own id.
    CustomId,
    /// `user_id` with User.com's number of the user.
    UserId,
}

/// By which field `add_member` names the user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberUser {
    /// User.com's number of the user.
    #[default]
    UserId,
    /// Your own id.
    UserCustomId,
}

/// By which id the path of `add_member` names the company.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberCompany {
    /// `companies/ID/add_member/` with User.com's number.
    #[default]
    Id,
    /// `companies-by-id/ID/add_member/` with your own id.
    CustomId,
}

/// What the answer to the upsert of a user contains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpsertAnswer {
    /// The user's number.
    #[default]
    Id,
    /// The user's number and key.
    UserKey,
}

/// What User.com does with a custom attribute in a write that does not exist yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownAttributeAnswer {
    /// It takes the write and leaves the attribute out.
    #[default]
    Ignored,
    /// It creates the attribute.
    Created,
    /// It refuses the write.
    Refused,
}

/// Whether ids that differ in upper and lower case only are different users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdCase {
    /// They are.
    #[default]
    Distinguished,
    /// They are the same user.
    Ignored,
}

/// What `page_domain` of a page view contains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PageDomain {
    /// The host.
    #[default]
    Host,
    /// The whole URL.
    Url,
}

/// What User.com does with a time in the future.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FutureTimes {
    /// It refuses the event or page view.
    #[default]
    Refused,
    /// It puts the present in its place.
    Clamped,
    /// It keeps the time.
    Kept,
}
