//! JSON of other shapes, ids, pages and times of visibility.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Row, WRITES, each_key, plain, reshaped, row, usual};
use crate::account::behaviour::{Behaviour, Effect, Route, When};
use crate::support::KEY;
use crate::support::stub::{Answer, answer, json as api};

const READS: &[Route] =
    &[Route::UserRead, Route::EventHistory, Route::ViewHistory, Route::CompanyRead];
const LISTS: &[Route] = &[Route::AttributeList, Route::EventHistory, Route::ViewHistory];

fn of_lists(route: Route, value: &mut Value, change: impl Fn(&mut Value)) {
    if LISTS.contains(&route) {
        change(value);
    }
}

/// The answers to events and page views are lost now and then, so that histories are read.
fn lossy(behaviour: Behaviour) -> Behaviour {
    behaviour
        .on(&[Route::Event, Route::View], When::Every(4), Effect::Applied, |_, _| Answer::Close)
}

fn paged(reshape: fn(Route, &mut Value)) -> Behaviour {
    lossy(Behaviour { page_size: 1, reshape: Some(reshape), ..usual() })
}

/// All rows of this file.
pub(super) fn rows() -> Vec<Row> {
    [late(), pages(), objects(), bodies(), ids(), echoes(), refusals()]
        .into_iter()
        .flatten()
        .collect()
}

fn objects() -> Vec<Row> {
    let is_list = |route| LISTS.contains(&route);
    vec![
        row(
            "objects stand under data",
            reshaped(|route, value| {
                if !LISTS.contains(&route) {
                    *value = json!({"data": value.take()});
                }
            }),
        ),
        row(
            "objects stand alone in a list",
            reshaped(|route, value| {
                if !LISTS.contains(&route) {
                    *value = json!([value.take()]);
                }
            }),
        ),
        row(
            "everything stands under result and data",
            reshaped(|_, value| *value = json!({"result": {"data": value.take()}})),
        ),
        row("lists are empty objects at first", {
            assert!(is_list(Route::AttributeList));
            usual().on(LISTS, When::First(2), Effect::NotApplied, |_, _| api(200, "{}"))
        }),
    ]
}

/// Successes of reads and writes with other bodies than objects.
fn bodies() -> Vec<Row> {
    let mut rows = Vec::new();
    for (write, read, text) in [
        ("writes answered []", "each fourth read answered []", "[]"),
        ("writes answered {}", "each fourth read answered {}", "{}"),
        ("writes answered [[]]", "each fourth read answered [[]]", "[[]]"),
        ("writes answered with text in JSON", "each fourth read answered with text", "\"ok\""),
        ("writes answered -1", "each fourth read answered -1", "-1"),
        ("writes answered [null]", "each fourth read answered [null]", "[null]"),
        ("writes answered true", "each fourth read answered nothing", ""),
    ] {
        let on_writes = usual().on(WRITES, When::Always, Effect::Applied, plain(200, text));
        let is_short = matches!(text, "{}" | "[null]");
        let length = |row: Row| if is_short { row } else { row.soak() };
        rows.push(length(row(write, on_writes)));
        let on_reads = usual().on(READS, When::Every(4), Effect::NotApplied, plain(200, text));
        let read = length(row(read, on_reads));
        // An empty list says that nothing arrived.
        rows.push(if text == "[]" { read.doubles() } else { read });
    }
    rows
}

fn ids() -> Vec<Row> {
    vec![
        row("ids are huge", Behaviour { numbers_from: 9_000_000_000_000_000_000, ..usual() }),
        row(
            "ids are strings with blanks",
            reshaped(|_, value| {
                each_key(value, "id", &|id| {
                    if let Some(number) = id.as_u64() {
                        *id = json!(format!(" {number} "));
                    }
                });
            }),
        ),
        row(
            "writes answer negative ids",
            reshaped(|route, value| {
                if WRITES.contains(&route) {
                    each_key(value, "id", &|id| *id = json!(-1));
                }
            }),
        ),
        row(
            "writes answer ids that are objects",
            reshaped(|route, value| {
                if WRITES.contains(&route) {
                    each_key(value, "id", &|id| *id = json!({"value": id.take()}));
                }
            }),
        ),
    ]
}

fn pages() -> Vec<Row> {
    vec![
        row(
            "pages: next has another host",
            paged(|route, value| {
                of_lists(route, value, |value| {
                    if let Some(next) = value["next"].as_str() {
                        value["next"] = json!(format!("http://127.0.0.1:9/api/public/{next}"));
                    }
                });
            }),
        ),
        row(
            "pages: next counts pages",
            paged(|route, value| {
                of_lists(route, value, |value| {
                    if let Some(next) = value["next"].as_str() {
                        value["next"] = json!(next.replace("cursor=", "page="));
                    }
                });
            }),
        ),
        row(
            "pages: next is an offset behind a slash",
            paged(|route, value| {
                of_lists(route, value, |value| {
                    if let Some(next) = value["next"].as_str() {
                        let next = next.replace("cursor=", "limit=1&offset=");
                        value["next"] = json!(format!("/api/public/{next}"));
                    }
                });
            }),
        ),
        row(
            "pages: the count is wrong",
            paged(|route, value| of_lists(route, value, |value| value["count"] = json!("many"))),
        ),
        row(
            "pages: the last one leads back to the first",
            paged(|route, value| {
                of_lists(route, value, |value| {
                    if value["next"].is_null() {
                        value["next"] = json!("?cursor=0");
                    }
                });
            }),
        ),
        row(
            "pages: next is an object",
            lossy(reshaped(|route, value| {
                of_lists(route, value, |value| value["next"] = json!({"page": 2}));
            })),
        ),
    ]
}

/// What was taken is shown late.
fn late() -> Vec<Row> {
    let hidden = |name, hidden_for| {
        row(name, lossy(Behaviour { hidden_for: Duration::from_millis(hidden_for), ..usual() }))
    };
    vec![
        hidden("histories: shown after 0.3 s", 300),
        hidden("histories: shown after 2 s", 2_000),
        hidden("histories: shown after 5 s", 5_000),
        row("everything is seen after 2 s", {
            let (unseen_for, hidden_for) = (Duration::from_secs(2), Duration::from_secs(2));
            lossy(Behaviour { unseen_for, hidden_for, ..usual() })
        }),
        row(
            "histories: forbidden",
            usual().on(
                &[Route::EventHistory, Route::ViewHistory],
                When::Always,
                Effect::NotApplied,
                |_, _| api(403, r#"{"detail":"no"}"#),
            ),
        )
        .doubles()
        .says(&["history cannot be read"]),
        row(
            "histories: always 500",
            usual().on(
                &[Route::EventHistory, Route::ViewHistory],
                When::Always,
                Effect::NotApplied,
                |_, _| api(500, ""),
            ),
        )
        .with("delivery = { poison_attempts = 3, poison_after_secs = 1 }")
        .doubles()
        .says(&["history cannot be read"]),
        row(
            "histories: the first is no list",
            lossy(usual().on(
                &[Route::EventHistory, Route::ViewHistory],
                When::First(2),
                Effect::NotApplied,
                |_, _| api(200, r#"{"count":0}"#),
            )),
        ),
    ]
}

/// Answers that hold the API key.
fn echoes() -> Vec<Row> {
    let is_meant = |asked: &crate::support::stub::Asked, _| asked.body.contains("\"e10\"");
    vec![
        row("the key is echoed in base64, URLs and headers", {
            usual().on(&[Route::Event], When::Of(is_meant), Effect::NotApplied, |_, _| {
                use base64::Engine;
                let engine = base64::engine::general_purpose::STANDARD;
                let basic = engine.encode(format!("Token {KEY}"));
                let escaped = KEY.replace('-', "%2D");
                let body = json!({
                    "detail": format!("Authorization: Token {KEY}"), "basic": basic,
                    "url": format!("https://x.example/?key={escaped}"), "upper": KEY.to_uppercase(),
                    KEY: "a name",
                });
                let header = format!("Token {KEY}");
                let headers =
                    [("X-Echo", header.as_str()), ("Retry-After", KEY), ("Content-Type", KEY)];
                answer(400, &headers, &body.to_string())
            })
        })
        .dead(&["status_400"]),
        row("the key is echoed in a redirect", {
            usual().on(&[Route::Event], When::Every(5), Effect::NotApplied, |_, _| {
                let location = format!("http://127.0.0.1:9/?token={KEY}");
                answer(302, &[("Location", location.as_str())], KEY)
            })
        }),
        row("NUL and half an emoji in a refusal", {
            usual().on(&[Route::Event], When::Of(is_meant), Effect::NotApplied, |_, _| {
                api(400, r#"{"detail":"a\u0000b \ud83d \u001b[31m red"}"#)
            })
        })
        .dead(&["status_400"]),
    ]
}

/// Events refused for one property, in several ways to say so.
fn refusals() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, text) in [
        ("a property is refused under its name", r#"{"n":["A valid string is required."]}"#),
        ("a property is refused under data", r#"{"data":{"n":["no"]}}"#),
        ("a property is refused in a list", r#"{"errors":[{"field":"n","message":"no"}]}"#),
        ("a property is refused in a sentence", r#"{"detail":"Unknown attribute 'n'."}"#),
        ("a property is refused in a list of sentences", r#"["property n is not known"]"#),
    ] {
        let has_property = |asked: &crate::support::stub::Asked, _| asked.body.contains("\"n\":");
        let refuse = move |_, _: &Value| api(400, text);
        let behaviour =
            usual().on(&[Route::Event], When::Of(has_property), Effect::NotApplied, refuse);
        rows.push(row(name, behaviour).says(&["refused the event's property"]));
    }
    rows
}
