//! Segment's `integrations`: the destinations that an event is sent to. Consent managers set them.

use super::json::{self, JsonKind};
use crate::call;
use crate::coerce::boolean;

/// The switches of an `integrations` object.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Integrations {
    /// For all destinations that are not named.
    all: Option<bool>,
    /// For User.com.
    ours: Option<bool>,
}

impl Integrations {
    /// Reads the object; any other value sets nothing.
    pub(super) fn read(raw: Option<&str>) -> Self {
        let mut switches = Self::default();
        let Some(raw) = raw.filter(|raw| JsonKind::of(raw) == JsonKind::Object) else {
            return switches;
        };
        for (name, json) in call::entries(raw) {
            let switch = match name.trim() {
                name if name.eq_ignore_ascii_case("all") => &mut switches.all,
                name if is_ours(name) => &mut switches.ours,
                _ => continue,
            };
            let value = is_on(json);
            // If two spellings disagree, `false` counts.
            *switch = match (*switch, value) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (earlier, value) => value.or(earlier),
            };
        }
        switches
    }

    /// The event's switches, else those of its batch.
    pub(super) fn or(self, batch: Self) -> Self {
        Self { all: self.all.or(batch.all), ours: self.ours.or(batch.ours) }
    }

    /// Whether an event is sent to User.com.
    pub(super) fn allow(self) -> bool {
        self.ours.or(self.all).unwrap_or(true)
    }

    /// Why an event is not sent to User.com.
    pub(super) fn why_not(self) -> &'static str {
        match self.ours {
            Some(_) => "`integrations` excludes User.com",
            None => "`integrations` has `All: false` and does not name User.com",
        }
    }
}

/// The settings of User.com in an `integrations` object.
pub(super) fn settings(raw: &str) -> Option<&str> {
    if JsonKind::of(raw) != JsonKind::Object {
        return None;
    }
    let ours = call::entries(raw).filter(|(name, _)| is_ours(name.trim()));
    ours.map(|(_, json)| json).filter(|json| JsonKind::of(json) == JsonKind::Object).last()
}

/// `user`, `USER`, `User.com`, `user.com` and so on.
fn is_ours(name: &str) -> bool {
    ["user.com", "user", "usercom"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether a value enables a destination: true, or an object of settings.
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
    fn event_is_excluded_in_every_spelling() {
        // `false` by name or for all excludes the event, the name wins over `All`, and switches of
        // other destinations do not matter.
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
            let switches = Integrations::read(Some(message)).or(Integrations::read(Some(batch)));
            assert_eq!(switches.allow(), allowed, "{message} {batch}");
        }
        assert!(Integrations::read(None).allow());
    }
}
