//! Questions about events: unknown users, times, and the history.

use serde_json::{Value, json};

use super::PREFIX;
use super::finding::FoundSetting;
use super::session::{ProbeAnswer, ProbeSession, ProbeStop};
use super::users::ProbeUsers;
use crate::clock;
use crate::config::account::FutureTimes;
use crate::usercom::endpoint::events::{moment, written_time};
use crate::usercom::endpoint::page_entries;

/// A time in the past, in seconds: 2020-01-02 03:04:05 UTC.
const PAST: i64 = 1_577_934_245;

/// How far a time lies in the future, in seconds.
const DAY: i64 = 86_400;

/// How far a stored time may differ, in seconds.
const TOLERANCE: i64 = 60;

/// The name of the events. It is the same for every run, because its definition stays.
fn event_name() -> String {
    format!("{PREFIX}event")
}

pub(super) async fn ask(
    session: &mut ProbeSession<'_>,
    people: &ProbeUsers,
) -> Result<(), ProbeStop> {
    unknown_user(session).await?;
    past(session, people).await?;
    future(session, people).await
}

/// Whether an event of an unknown user is refused.
async fn unknown_user(session: &mut ProbeSession<'_>) -> Result<(), ProbeStop> {
    const QUESTION: &str = "an event of an unknown user";
    let path = format!("users-by-id/{}/", session.id("unknown"));
    let answer = session.post(format!("{path}events/"), json!({ "name": event_name() })).await?;
    let sent = session.shown_request();
    if !answer.is_success() {
        let effect = "the user is created first, and the event is sent again";
        session.found(QUESTION, answer.status.to_string(), None, effect);
        return Ok(());
    }
    session.note_permanent(format!("event {}", event_name()));
    if session.look(&path, ProbeAnswer::is_success).await? {
        session.note_user(&session.id("unknown"));
        let answered = format!("{}, and the user is there", answer.status);
        session.found_by(QUESTION, sent, answered, None, "works without an upsert");
    } else {
        let answered = format!("{}, and there is no user", answer.status);
        let why = "it takes events of unknown users and does not store them";
        session.cannot_work(QUESTION, sent, answered, why);
    }
    Ok(())
}

/// Sends an event of a time. Returns the answer and the time that the history shows.
async fn event_at(
    session: &mut ProbeSession<'_>,
    people: &ProbeUsers,
    mark: &str,
    at: i64,
) -> Result<(ProbeAnswer, Option<i64>), ProbeStop> {
    let user = people.first();
    let path = format!("users-by-id/{}/events/", user.id);
    let body = json!({ "name": event_name(), "timestamp": at, "data": { "mark": mark } });
    let answer = session.post(path.clone(), body).await?;
    let sent = session.shown_request();
    let mut stored = None;
    if answer.is_success() {
        session.note_permanent(format!("event {}", event_name()));
        let is_it = |entry: &&Value| entry["data"]["mark"] == mark;
        let found = session
            .look(&path, |history| page_entries(&history.body).iter().any(|entry| is_it(&entry)))
            .await?;
        if found {
            let history = session.get(path).await?;
            let entries = page_entries(&history.body);
            let time = entries.iter().find(is_it).and_then(|entry| moment(written_time(entry)));
            stored = time.map(|time| time.as_second());
        }
    }
    session.show_instead(sent);
    Ok((answer, stored))
}

/// Whether an event keeps its time, and whether the history shows it.
async fn past(session: &mut ProbeSession<'_>, people: &ProbeUsers) -> Result<(), ProbeStop> {
    const QUESTION: &str = "an event of the year 2020";
    let (answer, stored) = event_at(session, people, "past", PAST).await?;
    let sent = session.shown_request();
    if !answer.is_success() {
        session.cannot_work(QUESTION, sent, answer.told(), "it refuses an event in the past");
        return Ok(());
    }
    // The zone of a time without one is not known.
    match stored {
        Some(stored) if (stored - PAST).abs() <= DAY => {
            session.found(QUESTION, "kept, and in the history", None, EXACTLY_ONCE);
        }
        Some(_) => {
            let why = "it puts another time in place of one in the past";
            session.cannot_work(QUESTION, sent, "another time is stored", why);
        }
        None => {
            let effect = "after a crash an event may be sent twice: the history cannot be read";
            session.found(QUESTION, "taken, not in the history", None, effect);
        }
    }
    Ok(())
}

const EXACTLY_ONCE: &str = "after a crash the history tells whether an event arrived";

/// What becomes of a time in the future.
async fn future(session: &mut ProbeSession<'_>, people: &ProbeUsers) -> Result<(), ProbeStop> {
    const QUESTION: &str = "an event of tomorrow";
    let at = clock::now().as_second() + DAY;
    let (answer, stored) = event_at(session, people, "future", at).await?;
    let (value, answered) = match stored {
        _ if !answer.is_success() => (FutureTimes::Refused, "refused"),
        Some(stored) if (stored - at).abs() <= TOLERANCE => (FutureTimes::Kept, "kept"),
        Some(_) => (FutureTimes::Clamped, "another time is stored"),
        None => (FutureTimes::Refused, "taken, not in the history"),
    };
    let effect = match value {
        FutureTimes::Kept => "times in the future are sent as they are",
        FutureTimes::Clamped | FutureTimes::Refused => "the present is sent instead",
    };
    // The time in the body is another one in each run.
    let sent = "POST users-by-id/…-user-1/events/ with a timestamp".to_owned();
    let setting = FoundSetting::new("future_times", value);
    session.found_by(QUESTION, sent, answered, Some(setting), effect);
    Ok(())
}
