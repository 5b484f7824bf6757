//! Throttles, histories that are late, users that are stuck.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;

/// Throttles and outages.
pub(super) fn throttles() -> Vec<Row> {
    let header = |name: &'static str, text: &'static str, code| {
        move |_: u16, _: &Value| answer(code, &[(name, text)], r#"{"detail":"throttled"}"#)
    };
    let one = |name, behaviour: Behaviour| row(name, behaviour);
    vec![
        one(
            "429 for everything for 5 s",
            usual().on(ALL, seconds(0.2, 5.2), Effect::NotApplied, header("Retry-After", "1", 429)),
        ),
        one(
            "429 for everything for 5 s, no header",
            usual().on(ALL, seconds(0.2, 5.2), Effect::NotApplied, header("X-Other", "1", 429)),
        ),
        one(
            "503 for everything for 5 s",
            usual().on(ALL, seconds(0.2, 5.2), Effect::NotApplied, status(503)),
        ),
        one(
            "one in ten refused",
            usual().on(ALL, When::Every(10), Effect::NotApplied, header("Retry-After", "1", 429)),
        ),
        one(
            "Retry-After: 1.7",
            usual().on(ALL, When::Every(20), Effect::NotApplied, header("Retry-After", "1.7", 429)),
        ),
        one(
            "Retry-After: soon",
            usual().on(
                ALL,
                When::Every(20),
                Effect::NotApplied,
                header("Retry-After", "soon", 429),
            ),
        ),
        one(
            "Retry-After: -5",
            usual().on(ALL, When::Every(20), Effect::NotApplied, header("Retry-After", "-5", 503)),
        ),
        one(
            "taken and then answered 503",
            usual().on(WRITES, When::Every(6), Effect::Applied, status(503)),
        ),
        one(
            "taken and then answered 500",
            usual().on(WRITES, When::Every(6), Effect::Applied, status(500)),
        ),
        one(
            "taken and then answered 429",
            usual().on(WRITES, When::Every(6), Effect::Applied, header("Retry-After", "1", 429)),
        ),
        one(
            "taken and then answered 504 as a web page",
            usual().on(WRITES, When::Every(6), Effect::Applied, web_page(504)),
        ),
        one(
            "taken and then the connection ends",
            usual().on(WRITES, When::Every(6), Effect::Applied, |_, _| Answer::Close),
        ),
        one(
            "each connection is closed after its answer",
            usual().on(ALL, When::Every(2), Effect::Applied, |status, body| {
                Answer::ThenClose(Box::new(api(status, &body.to_string())), Duration::ZERO)
            }),
        ),
    ]
}

/// Histories that look otherwise, while answers are lost.
pub(super) fn histories() -> Vec<Row> {
    let lossy = |behaviour: Behaviour| {
        behaviour
            .on(&[Route::Event, Route::View], When::Every(4), Effect::Applied, |_, _| Answer::Close)
    };
    vec![
        row("histories: oldest first", lossy(Behaviour { order: Order::OldestFirst, ..usual() })),
        row("histories: in no order", lossy(Behaviour { order: Order::ByName, ..usual() })),
        row("histories: 330 old entries", lossy(Behaviour { old_entries: 330, ..usual() })),
        row(
            "histories: 330 old entries, oldest first, 10 on a page",
            lossy(Behaviour {
                old_entries: 330,
                order: Order::OldestFirst,
                page_size: 10,
                ..usual()
            }),
        ),
        row("histories: times are local", lossy(Behaviour { local_hours: Some(2), ..usual() })),
        row(
            "histories: ids are text",
            lossy(reshaped(|route, value| {
                if matches!(route, Route::EventHistory | Route::ViewHistory) {
                    each_key(value, "id", &|id| *id = json!(format!("7d9f-{id}")));
                }
            })),
        ),
        row(
            "histories: no ids",
            lossy(reshaped(|route, value| {
                if matches!(route, Route::EventHistory | Route::ViewHistory) {
                    for item in value["results"].as_array_mut().into_iter().flatten() {
                        item.as_object_mut().unwrap().remove("id");
                    }
                }
            })),
        ),
        row(
            "histories: a plain array",
            lossy(reshaped(|route, value| {
                if matches!(route, Route::EventHistory | Route::ViewHistory) {
                    *value = value["results"].take();
                }
            })),
        ),
        row(
            "histories: times in seconds",
            lossy(reshaped(|route, value| {
                if matches!(route, Route::EventHistory | Route::ViewHistory) {
                    each_key(value, "timestamp", &|at| {
                        let time: jiff::Timestamp = at.as_str().unwrap().parse().unwrap();
                        *at = json!(time.as_second());
                    });
                }
            })),
        ),
    ]
}

/// Half of the users are stuck for 15 s: they take no slots of other users.
pub(super) fn stuck() -> Vec<Row> {
    let is_stuck = |asked: &Asked, since: Duration| {
        let user = asked.path.strip_prefix("users-by-id/u").and_then(|id| id.split('/').next());
        let is_first_half = user.and_then(|id| id.parse::<u32>().ok()).is_some_and(|id| id < 12);
        asked.method == "POST" && is_first_half && since < Duration::from_secs(15)
    };
    let stuck = |name, make: fn(u16, &Value) -> Answer| {
        let behaviour = usual().on(&[Route::Event], When::Of(is_stuck), Effect::NotApplied, make);
        let mut row = row(name, behaviour).with("delivery = { max_in_flight = 20 }");
        row.others_within = Some(Duration::from_secs(14));
        row
    };
    vec![
        stuck("the events of 12 users are answered 500 for 15 s", |_, _| api(500, "")),
        stuck("the events of 12 users are answered 503 for 15 s", |_, _| api(503, "")),
        stuck("the events of 12 users are cut for 15 s", |_, _| Answer::Close),
        stuck("the events of 12 users are web pages for 15 s", |_, _| page(502)),
    ]
}
