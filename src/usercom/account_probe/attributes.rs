//! Questions whose experiments leave custom attributes behind, unless these can be deleted.

use serde_json::{Value, json};

use super::finding::{Finding, FindingOutcome, FoundSetting};
use super::session::{ProbeSession, ProbeStop};
use super::users::ProbeUsers;
use crate::config::account::UnknownAttributeAnswer;
use crate::usercom::endpoint::{number, page_entries};

const UNKNOWN: &str = "an attribute that does not exist";
const WRONG_TYPE: &str = "\"12\" for an integer attribute";

/// Notes that these questions were not asked.
pub(super) fn leave_out(session: &mut ProbeSession<'_>) {
    for question in [UNKNOWN, WRONG_TYPE] {
        session.findings.push(Finding {
            question,
            sent: String::new(),
            answered: "not asked".to_owned(),
            setting: None,
            effect: "--attributes asks; it may leave custom attributes behind",
            outcome: FindingOutcome::NotAsked("only with --attributes"),
        });
    }
}

pub(super) async fn ask(
    session: &mut ProbeSession<'_>,
    people: &ProbeUsers,
) -> Result<(), ProbeStop> {
    unknown(session, people).await?;
    wrong_type(session, people).await
}

/// The name of an attribute of this run: at most 32 characters.
fn name(session: &ProbeSession<'_>, suffix: &str) -> String {
    session.id(suffix)
}

/// What a user shows of an attribute.
fn shown(user: &Value, name: &str) -> Value {
    let slug = crate::usercom::profile::limits::name_std(name);
    let listed = user["attributes"].as_array().into_iter().flatten();
    let is_it = |entry: &&Value| entry["name"] == name || entry["name_std"] == slug.as_str();
    match (user.get(name).or_else(|| user.get(&slug)), listed.into_iter().find(is_it)) {
        (Some(value), _) => value.clone(),
        (None, Some(entry)) => entry["value"].clone(),
        (None, None) => Value::Null,
    }
}

async fn unknown(session: &mut ProbeSession<'_>, people: &ProbeUsers) -> Result<(), ProbeStop> {
    let (user, name) = (people.first(), name(session, "a"));
    let mut body = json!({ "custom_id": user.id });
    body[&name] = json!("x");
    let answer = session.upsert(body).await?;
    let sent = session.shown_request();
    let is_there = answer.is_success()
        && session.look(&user.path(), |user| !shown(&user.body, &name).is_null()).await?;
    let (value, answered, effect) = match (answer.is_success(), is_there) {
        (true, true) => (
            UnknownAttributeAnswer::Created,
            "created",
            "no request to create an attribute of type string",
        ),
        (true, false) => {
            (UnknownAttributeAnswer::Ignored, "ignored", "attributes are created before")
        }
        (false, _) => (UnknownAttributeAnswer::Refused, "refused", "attributes are created before"),
    };
    if is_there {
        note(session, &name).await?;
    }
    let setting = FoundSetting::new("unknown_attribute", value);
    session.found_by(UNKNOWN, sent, answered, Some(setting), effect);
    Ok(())
}

/// Notes an attribute for deletion, by the number that the list shows.
async fn note(session: &mut ProbeSession<'_>, name: &str) -> Result<(), ProbeStop> {
    let list = session.get("attributes/".to_owned()).await?;
    let entries = page_entries(&list.body);
    let id =
        entries.iter().find(|entry| entry["name"] == name).and_then(|entry| number(&entry["id"]));
    note_numbered(session, name, id);
    Ok(())
}

fn note_numbered(session: &mut ProbeSession<'_>, name: &str, id: Option<u64>) {
    let what = format!("attribute {name}");
    match id {
        Some(id) => session.note_made(what, "attributes/:id/", format!("attributes/{id}/")),
        None => session.note_permanent(what),
    }
}

async fn wrong_type(session: &mut ProbeSession<'_>, people: &ProbeUsers) -> Result<(), ProbeStop> {
    let (user, name) = (people.first(), name(session, "n"));
    let body = json!({ "name": name, "value_type": "integer", "content_type": "clientuser" });
    let made = session.post("attributes/", body).await?;
    if !made.is_success() {
        let sent = session.shown_request();
        let why = "it refuses to create an attribute; set `users.unknown_attributes = \"drop\"`";
        session.cannot_work(WRONG_TYPE, sent, made.told(), why);
        return Ok(());
    }
    note_numbered(session, &name, made.number());
    let mut body = json!({ "custom_id": user.id });
    body[&name] = json!("12");
    let answer = session.upsert(body).await?;
    let sent = session.shown_request();
    let mut answered = "refused";
    if answer.is_success() {
        let path = user.path();
        let is = |wanted: Value| {
            let name = name.clone();
            move |user: &super::session::ProbeAnswer| shown(&user.body, &name) == wanted
        };
        answered = if session.look(&path, is(json!(12))).await? {
            "converted to 12"
        } else if session.look(&path, is(json!("12"))).await? {
            "stored as text"
        } else {
            "ignored"
        };
    }
    let effect = "values are converted before they are sent";
    session.found_by(WRONG_TYPE, sent, answered, None, effect);
    Ok(())
}
