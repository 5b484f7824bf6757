//! Questions about users: what an upsert does, answers and matches.

use serde_json::json;

use super::finding::FoundSetting;
use super::session::{ProbeSession, ProbeStop};
use crate::config::account::{AccountConfig, IdCase, UpsertAnswer};
use crate::usercom::endpoint::{number, segment};

/// How much longer than measured a write may take to be seen.
const DELAY_FACTOR: u64 = 10;

/// The longest id that is tried, in characters.
const LONGEST_ID: usize = 255;

/// Users that later questions are asked about.
pub(super) struct ProbeUsers {
    pub(super) users: [ProbeUser; 4],
    /// The key of the first one.
    pub(super) key: Option<String>,
}

/// One of them.
#[derive(Debug, Clone, Default)]
pub(super) struct ProbeUser {
    pub(super) id: String,
    pub(super) number: Option<u64>,
}

impl ProbeUsers {
    pub(super) fn first(&self) -> &ProbeUser {
        &self.users[0]
    }
}

impl ProbeUser {
    /// The path that shows it.
    pub(super) fn path(&self) -> String {
        match self.number {
            Some(number) => format!("users/{number}/"),
            None => format!("users-by-id/{}/", self.id),
        }
    }
}

/// Creates the users, and looks at what the answer contains.
pub(super) async fn upserts(session: &mut ProbeSession<'_>) -> Result<ProbeUsers, ProbeStop> {
    const QUESTION: &str = "answer to an upsert";
    let mut users: [ProbeUser; 4] = Default::default();
    let mut key = None;
    for (n, user) in users.iter_mut().enumerate() {
        user.id = session.id(&format!("user-{}", n + 1));
        let answer = session.upsert(json!({ "custom_id": user.id, "first_name": "Probe" })).await?;
        if !answer.is_success() {
            let sent = session.shown_request();
            session.cannot_work(QUESTION, sent, answer.told(), "it refuses the upsert of a user");
            return Err(ProbeStop::Unworkable);
        }
        user.number = answer.number();
        if n > 0 {
            continue;
        }
        key = answer.body["user_key"].as_str().map(str::to_owned);
        let value = if key.is_some() { UpsertAnswer::UserKey } else { UpsertAnswer::Id };
        let told = match (user.number, &key) {
            (Some(_), Some(_)) => "number and key",
            (Some(_), None) => "the number, no key",
            (None, Some(_)) => "the key, no number",
            (None, None) => "neither number nor key",
        };
        let effect = match value {
            UpsertAnswer::UserKey => "no look-up of the key of a user that was written",
            UpsertAnswer::Id => "the key of a user is looked up before its first page view",
        };
        let answered = format!("{}, {told}", answer.status);
        session.found(QUESTION, answered, Some(FoundSetting::new("upsert_answer", value)), effect);
    }
    Ok(ProbeUsers { users, key })
}

/// How long it takes until a new user is seen.
pub(super) async fn visibility(
    session: &mut ProbeSession<'_>,
    people: &ProbeUsers,
) -> Result<(), ProbeStop> {
    const QUESTION: &str = "a new user is seen after";
    // The newest: once it is seen, the others are.
    let newest = people.users.last().map(ProbeUser::path).unwrap_or_default();
    let Some((waited, _)) = session.until_seen(&newest).await? else {
        let sent = session.shown_request();
        let why = "a user that it took is not shown within a minute";
        session.cannot_work(QUESTION, sent, "404 for a minute", why);
        return Err(ProbeStop::Unworkable);
    };
    let secs = waited.as_secs();
    let default = AccountConfig::default().read_after_write_secs;
    let value = (secs * DELAY_FACTOR).max(default);
    let answered = if secs == 0 { "at once".to_owned() } else { format!("{secs} s") };
    session.found(
        QUESTION,
        answered,
        Some(FoundSetting::new("read_after_write_secs", value)),
        "a 404 right after a write is asked again for so long",
    );
    Ok(())
}

/// Which ids are the same, and which are possible.
pub(super) async fn ids(session: &mut ProbeSession<'_>) -> Result<(), ProbeStop> {
    case(session).await?;
    length(session).await?;
    slash(session).await
}

async fn case(session: &mut ProbeSession<'_>) -> Result<(), ProbeStop> {
    const QUESTION: &str = "upper and lower case in ids";
    let lower = session.upsert(json!({ "custom_id": session.id("case-a") })).await?;
    let upper = session.upsert(json!({ "custom_id": session.id("case-A") })).await?;
    let same = match (lower.number(), upper.number()) {
        (Some(lower), Some(upper)) => lower == upper,
        _ => upper.body["created"] == json!(false),
    };
    let (value, answered, effect) = match same {
        true => (
            IdCase::Ignored,
            "one user",
            "ids are written in lower case: one user, in the order of the calls",
        ),
        false => (IdCase::Distinguished, "two users", "ids are sent as they are"),
    };
    session.found(QUESTION, answered, Some(FoundSetting::new("id_case", value)), effect);
    Ok(())
}

async fn length(session: &mut ProbeSession<'_>) -> Result<(), ProbeStop> {
    const QUESTION: &str = "longest id";
    let shortest = session.id("length-").len();
    let mut fits = shortest;
    if takes_id_of(session, LONGEST_ID).await? {
        fits = LONGEST_ID;
    } else {
        // `fits` is taken, `too_long` is not.
        let mut too_long = LONGEST_ID;
        while too_long - fits > 1 {
            let middle = usize::midpoint(fits, too_long);
            match takes_id_of(session, middle).await? {
                true => fits = middle,
                false => too_long = middle,
            }
        }
    }
    let sent = "POST users/update_or_create/ with long ids".to_owned();
    let setting = FoundSetting::new("id_max_length", fits);
    let effect = "records with longer ids go to the dead letters";
    session.found_by(QUESTION, sent, format!("{fits} characters"), Some(setting), effect);
    Ok(())
}

/// Whether an id of so many characters is taken whole.
async fn takes_id_of(session: &mut ProbeSession<'_>, length: usize) -> Result<bool, ProbeStop> {
    let mut id = session.id("length-");
    id.push_str(&"x".repeat(length.saturating_sub(id.len())));
    let made = session.post("users/update_or_create/", json!({ "custom_id": id })).await?;
    if !made.is_success() {
        return Ok(false);
    }
    session.note_numbered_user(&id, made.number());
    let Some(number) = made.number() else {
        return Ok(true);
    };
    let shown = session.get(format!("users/{number}/")).await?;
    // What is not shown yet proves nothing.
    Ok(shown.body["custom_id"].as_str().is_none_or(|shown| shown == id))
}

async fn slash(session: &mut ProbeSession<'_>) -> Result<(), ProbeStop> {
    const QUESTION: &str = "an id with a slash";
    let id = session.id("a/b");
    let made = session.post("users/update_or_create/", json!({ "custom_id": id })).await?;
    if made.is_success() {
        session.note_numbered_user(&id, made.number());
    }
    let escaped = percent_encoding::utf8_percent_encode(&id, percent_encoding::NON_ALPHANUMERIC);
    let path = format!("users-by-id/{escaped}/");
    let found = made.is_success() && session.look(&path, |answer| answer.is_success()).await?;
    let answered = match (made.is_success(), found) {
        (true, true) => "taken, and found in a path",
        (true, false) => "taken, not found in a path",
        (false, _) => "refused",
    };
    session.found_by(
        QUESTION,
        "POST users/update_or_create/ {\"custom_id\":\"…-a/b\"}".to_owned(),
        answered,
        None,
        "such users are always named by number",
    );
    Ok(())
}

/// What a null does.
pub(super) async fn nulls(
    session: &mut ProbeSession<'_>,
    people: &ProbeUsers,
) -> Result<(), ProbeStop> {
    let user = people.first();
    let answer = session.upsert(json!({ "custom_id": user.id, "first_name": null })).await?;
    let sent = session.shown_request();
    let answered = if answer.is_success() {
        let kept = session
            .look(&user.path(), |shown| shown.body["first_name"].as_str() == Some("Probe"))
            .await?;
        if kept { "the field keeps its value" } else { "the field is emptied" }
    } else {
        "refused"
    };
    let effect = "nulls are not sent, whatever they do";
    session.found_by("a null in an upsert", sent, answered, None, effect);
    Ok(())
}

/// Whether `user_key` in an upsert leads to the visitor with this key.
pub(super) async fn key_in_upsert(session: &mut ProbeSession<'_>) -> Result<(), ProbeStop> {
    const QUESTION: &str = "user_key in an upsert";
    let visitor = session.post("users/", json!({ "first_name": session.id("visitor") })).await?;
    let (Some(number), Some(key)) = (visitor.number(), visitor.body["user_key"].as_str()) else {
        let answered = visitor.told();
        let effect = "people are found by a search, as `users.match_by` says";
        session.found(QUESTION, answered, None, effect);
        return Ok(());
    };
    let key = key.to_owned();
    session.note_numbered_user(&session.id("visitor"), Some(number));
    let id = session.id("visitor-id");
    let body = json!({ "custom_id": id, "user_key": key });
    let answer = session.post("users/update_or_create/", body).await?;
    let is_visitor = answer.body.get("id").and_then(self::number) == Some(number);
    if answer.is_success() && !is_visitor && segment(&id).is_some() {
        session.note_user(&id);
    }
    let answered = match (answer.is_success(), is_visitor) {
        (true, true) => "the visitor becomes this user",
        (true, false) => "a new user",
        (false, _) => "refused",
    };
    session.found_by(
        QUESTION,
        "POST users/update_or_create/ {\"custom_id\":\"…-visitor-id\",\"user_key\":KEY}".to_owned(),
        answered,
        None,
        "people are found by a search, as `users.match_by` says",
    );
    Ok(())
}
