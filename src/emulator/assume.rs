//! Assumptions: what the account does where the documentation of User.com does not say. Each of
//! them can be set to either side.
//!
//! # Invariants
//! The defaults are the strict sides: what is not documented does not work. Facts have the names of
//! the sink's settings where there is such a setting, but share no type with them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Defines an assumption with words as values; the first is the default.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            #[default]
            $($(#[$variant_doc])* $variant,)+
        }
    };
}

words! {
    /// What `company_custom_id` in a user's body does.
    AssumedCompanyField {
        /// The user becomes a member of the company, if it exists.
        Joins,
        /// Nothing.
        Ignored,
        /// As `joins`, and a company that does not exist is created.
        Creates,
        /// As `joins`, and the user leaves all other companies.
        Moves,
    }
}

words! {
    /// How a page view may name its user other than the key.
    AssumedPageUser {
        /// By the key only.
        UserKey,
        /// By the external id in `client_user`.
        ClientUser,
        /// By the external id in `user_custom_id`.
        UserCustomId,
        /// By the external id in `custom_id`.
        CustomId,
        /// By the remote id in `user_id`.
        UserId,
    }
}

words! {
    /// How `add_member` may name the user.
    AssumedMemberUser {
        /// By the remote id only.
        UserId,
        /// By the external id too.
        UserCustomId,
    }
}

words! {
    /// How `add_member` may name the company.
    AssumedMemberCompany {
        /// By the remote id only.
        Id,
        /// By the external id too.
        CustomId,
    }
}

words! {
    /// What the answer to an upsert contains.
    AssumedUpsertAnswer {
        /// The remote id.
        Id,
        /// The remote id and the key.
        UserKey,
    }
}

words! {
    /// What becomes of an attribute that does not exist.
    AssumedUnknownAttribute {
        /// It is ignored and counted.
        Ignored,
        /// It is created.
        Created,
        /// The write is refused.
        Refused,
    }
}

words! {
    /// What becomes of a value that does not have its attribute's type.
    AssumedWrongType {
        /// The write is refused.
        Refused,
        /// The value is converted if possible, else dropped.
        Converted,
        /// The value is dropped.
        Dropped,
    }
}

words! {
    /// Whether ids that differ in case only are different.
    AssumedIdCase {
        /// They are.
        Distinguished,
        /// They are not.
        Ignored,
    }
}

words! {
    /// What `page_domain` contains.
    AssumedPageDomain {
        /// The host.
        Host,
        /// The whole URL; a host alone is refused.
        Url,
    }
}

words! {
    /// What becomes of a time in the future.
    AssumedFutureTimes {
        /// The event or page view is refused.
        Refused,
        /// It becomes the present.
        Clamped,
        /// It is kept.
        Kept,
    }
}

words! {
    /// What becomes of a time in the past.
    AssumedPastTimes {
        /// It is kept.
        Kept,
        /// It becomes the present.
        Clamped,
    }
}

words! {
    /// What becomes of a null in a body.
    AssumedNulls {
        /// The write is refused.
        Refused,
        /// The field keeps its value.
        Ignored,
        /// The field is emptied.
        Cleared,
    }
}

words! {
    /// The answer to adding a member again.
    AssumedMemberAgain {
        /// 200.
        Accepted,
        /// 400.
        Refused,
    }
}

words! {
    /// What `user_key` in an upsert does.
    AssumedKeyInUpsert {
        /// The new user gets this key, unless another user has it.
        Written,
        /// The user with this key who has no external id yet is the one that is updated.
        Adopts,
    }
}

/// What the emulated account does where the documentation does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Assumptions {
    /// How long, in seconds, a new user or company is answered with 404.
    pub read_after_write_secs: u64,
    /// What `company_custom_id` in a user's body does.
    pub company_in_upsert: AssumedCompanyField,
    /// How a page view may name its user other than the key.
    pub page_view_user: AssumedPageUser,
    /// How `add_member` may name the user.
    pub member_user: AssumedMemberUser,
    /// How `add_member` may name the company.
    pub member_company: AssumedMemberCompany,
    /// The answer to adding a member again.
    pub member_again: AssumedMemberAgain,
    /// What the answer to an upsert contains.
    pub upsert_answer: AssumedUpsertAnswer,
    /// What `user_key` in an upsert does.
    pub user_key_in_upsert: AssumedKeyInUpsert,
    /// What becomes of an attribute that does not exist.
    pub unknown_attribute: AssumedUnknownAttribute,
    /// What becomes of a value that does not have its attribute's type.
    pub wrong_type: AssumedWrongType,
    /// What becomes of a null in a body.
    pub null_values: AssumedNulls,
    /// Whether ids that differ in case only are different.
    pub id_case: AssumedIdCase,
    /// The most characters of an id.
    pub id_max_length: u64,
    /// What `page_domain` contains.
    pub page_domain: AssumedPageDomain,
    /// What becomes of a time in the future.
    pub future_times: AssumedFutureTimes,
    /// What becomes of a time in the past.
    pub past_times: AssumedPastTimes,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            read_after_write_secs: 0,
            company_in_upsert: AssumedCompanyField::default(),
            page_view_user: AssumedPageUser::default(),
            member_user: AssumedMemberUser::default(),
            member_company: AssumedMemberCompany::default(),
            member_again: AssumedMemberAgain::default(),
            upsert_answer: AssumedUpsertAnswer::default(),
            user_key_in_upsert: AssumedKeyInUpsert::default(),
            unknown_attribute: AssumedUnknownAttribute::default(),
            wrong_type: AssumedWrongType::default(),
            null_values: AssumedNulls::default(),
            id_case: AssumedIdCase::default(),
            id_max_length: 255,
            page_domain: AssumedPageDomain::default(),
            future_times: AssumedFutureTimes::default(),
            past_times: AssumedPastTimes::default(),
        }
    }
}

/// The facts for the help text: name, values (the default first), and what it is about.
pub const FACTS: [(&str, &str, &str); 16] = [
    ("read_after_write_secs", "0, N", "seconds until a new user or company is visible"),
    (
        "company_in_upsert",
        "joins, ignored, creates, moves",
        "effect of company_custom_id in a user's body",
    ),
    (
        "page_view_user",
        "user_key, client_user, user_custom_id, custom_id, user_id",
        "how a page view may name its user beside the key",
    ),
    ("member_user", "user_id, user_custom_id", "how add_member may name the user"),
    ("member_company", "id, custom_id", "how add_member may name the company"),
    ("member_again", "accepted, refused", "answer to adding a member again"),
    ("upsert_answer", "id, user_key", "what the answer to an upsert contains"),
    ("user_key_in_upsert", "written, adopts", "effect of user_key in an upsert"),
    ("unknown_attribute", "ignored, created, refused", "an attribute that does not exist"),
    ("wrong_type", "refused, converted, dropped", "a value that is not of its attribute's type"),
    ("null_values", "refused, ignored, cleared", "a null in a body"),
    ("id_case", "distinguished, ignored", "whether upper and lower case differ in ids"),
    ("id_max_length", "255, N", "the most characters of an id"),
    ("page_domain", "host, url", "what page_domain must contain"),
    ("future_times", "refused, clamped, kept", "an event or page view in the future"),
    ("past_times", "kept, clamped", "an event or page view in the past"),
];

/// Why an assumption is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssumeError {
    /// It is not `FACT=VALUE`.
    #[error("`{0}` is not an assumption: write FACT=VALUE, such as page_view_user=custom_id")]
    Form(String),
    /// There is no such fact.
    #[error("there is no fact `{0}`; the facts are {facts}", facts = names())]
    Fact(String),
    /// The fact has no such value.
    #[error("`{fact}` cannot be `{value}`; its values are {values}")]
    Value {
        /// The fact.
        fact: String,
        /// The value that was given.
        value: String,
        /// The values there are.
        values: &'static str,
    },
    /// The JSON body is not an object.
    #[error("expected an object of facts and values")]
    Body,
}

fn names() -> String {
    FACTS.map(|(name, ..)| name).join(", ")
}

/// `--assume FACT=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assumption {
    fact: String,
    value: Value,
}

impl FromStr for Assumption {
    type Err = AssumeError;

    fn from_str(text: &str) -> Result<Self, AssumeError> {
        let (fact, value) =
            text.split_once('=').ok_or_else(|| AssumeError::Form(text.to_owned()))?;
        let (fact, value) = (fact.trim(), value.trim());
        let value = value.parse::<u64>().map_or_else(|_| json!(value), Value::from);
        let assumption = Self { fact: fact.to_owned(), value };
        Assumptions::default().with(&assumption)?;
        Ok(assumption)
    }
}

impl Assumptions {
    /// These with another one in place of its former value.
    ///
    /// # Errors
    /// When there is no such fact or value.
    pub fn with(self, assumption: &Assumption) -> Result<Self, AssumeError> {
        let Assumption { fact, value } = assumption;
        let Some((_, values, _)) = FACTS.iter().find(|(name, ..)| name == fact) else {
            return Err(AssumeError::Fact(fact.clone()));
        };
        let mut all = self.to_json();
        all.insert(fact.clone(), value.clone());
        let told = || value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        serde_json::from_value(Value::Object(all)).map_err(|_| AssumeError::Value {
            fact: fact.clone(),
            value: told(),
            values,
        })
    }

    /// These with the values of a JSON object; absent facts stay.
    ///
    /// # Errors
    /// When there is no such fact or value; then nothing is changed.
    pub(super) fn patched(self, body: Value) -> Result<Self, AssumeError> {
        let Value::Object(body) = body else { return Err(AssumeError::Body) };
        body.into_iter().try_fold(self, |all, (fact, value)| all.with(&Assumption { fact, value }))
    }

    /// All facts and their values.
    pub(super) fn to_json(self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(all)) => all,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_fact_with_its_values() {
        // Guarantees that the table of facts has each fact, its default first, and values that
        // work.
        let defaults = Assumptions::default().to_json();
        let listed: Vec<&str> = FACTS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(listed.len(), defaults.len());
        for (name, values, _) in FACTS {
            let first = values.split(", ").next().unwrap();
            let default = &defaults[name];
            assert!(default.as_str().unwrap_or(&default.to_string()) == first, "{name}");
            for value in values.split(", ") {
                let value = if value == "N" { "7" } else { value };
                format!("{name}={value}").parse::<Assumption>().unwrap();
            }
        }
    }

    #[test]
    fn invalid_assumption_is_refused_by_name() {
        // Guarantees that an error names the facts or values there are.
        let error = |text: &str| text.parse::<Assumption>().unwrap_err().to_string();
        assert!(error("page_view_user").contains("FACT=VALUE"));
        assert!(error("pages=1").contains("page_view_user"));
        assert!(error("id_case=none").contains("distinguished, ignored"));
        assert!(error("read_after_write_secs=soon").contains("0, N"));
        let both = json!({ "id_case": "ignored", "member_user": "user_custom_id" });
        let changed = Assumptions::default().patched(both).unwrap();
        assert_eq!(changed.member_user, AssumedMemberUser::UserCustomId);
        assert!(changed.patched(json!([])).is_err());
    }
}
