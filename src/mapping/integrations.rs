//! Segment's `integrations`: which destinations a record is meant for. Consent managers write them.

use super::json::{self, JsonKind};
use crate::call;
use crate::coerce::boolean;

/// What an `integrations` object says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Integrations {
    /// Of all destinations that are not named.
    all: Option<bool>,
    /// Of User.com.
    ours: Option<bool>,
}

impl Integrations {
    /// Reads the object; what is none says nothing.
    pub(super) fn read(raw: Option<&str>) -> Self {
        let mut said = Self::default();
        let Some(raw) = raw.filter(|raw| JsonKind::of(raw) == JsonKind::Object) else {
            return said;
        };
        for (name, json) in call::entries(raw) {
            let place = match name.trim() {
                name if name.eq_ignore_ascii_case("all") => &mut said.all,
                name if is_ours(name) => &mut said.ours,
                _ => continue,
            };
            let value = is_on(json);
            // Where two spellings disagree, the refusal counts.
            *place = match (*place, value) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (earlier, value) => value.or(earlier),
            };
        }
        said
    }

    /// What both say; this one's own words win over those that are said for a whole batch.
    pub(super) fn or(self, batch: Self) -> Self {
        Self { all: self.all.or(batch.all), ours: self.ours.or(batch.ours) }
    }

    /// Whether a record is for User.com.
    pub(super) fn allow(self) -> bool {
        self.ours.or(self.all).unwrap_or(true)
    }

    /// Why a record is not for User.com.
    pub(super) fn why_not(self) -> &'static str {
        match self.ours {
            Some(_) => "`integrations` says that it is not for User.com",
            None => "`integrations` says `All: false`, and does not name User.com",
        }
    }
}

/// `user`, `USER`, `User.com`, `user.com` and so on.
fn is_ours(name: &str) -> bool {
    ["user.com", "user", "usercom"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether a value switches a destination on: true, or an object of settings.
fn is_on(json: &str) -> Option<bool> {
    match JsonKind::of(json) {
        JsonKind::Null => None,
        JsonKind::Object | JsonKind::Array => Some(true),
        JsonKind::Bool | JsonKind::Number | JsonKind::String => boolean::parse(&json::text(json)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integrations_are_obeyed_in_every_spelling() {
        // A refusal by name or for all is obeyed, a name of its own wins over `All`, and what is said
        // of other destinations says nothing.
        for (message, batch, allowed) in [
            ("{}", "{}", true),
            (r#"{"User.com":false}"#, "{}", false),
            (r#"{"user":false}"#, "{}", false),
            (r#"{"USER.com":"false"}"#, "{}", false),
            (r#"{"All":false}"#, "{}", false),
            (r#"{"all":false,"Mixpanel":true}"#, "{}", false),
            (r#"{"All":false,"User.com":true}"#, "{}", true),
            (r#"{"All":false,"user.com":{"lookup":"email"}}"#, "{}", true),
            (r#"{"All":false,"User.com":{}}"#, "{}", true),
            (r#"{"All":true,"User.com":false}"#, "{}", false),
            (r#"{"User":true,"user.com":false}"#, "{}", false),
            (r#"{"Mixpanel":false}"#, "{}", true),
            ("{}", r#"{"USER":false}"#, false),
            (r#"{"USER":true}"#, r#"{"All":false}"#, true),
            (r#"{"All":true}"#, r#"{"User.com":false}"#, false),
            (r#"{"User.com":null}"#, r#"{"All":false}"#, false),
            (r#"["User.com"]"#, "{}", true),
        ] {
            let said = Integrations::read(Some(message)).or(Integrations::read(Some(batch)));
            assert_eq!(said.allow(), allowed, "{message} {batch}");
        }
        assert!(Integrations::read(None).allow());
    }
}
