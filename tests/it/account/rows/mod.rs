//! The table: one row for each way in which the account may answer.

mod delays;
mod shapes;
mod statuses;
mod wire;

use std::time::Duration;

use serde_json::{Value, json};

use crate::account::behaviour::{Behaviour, Effect, MakeAnswer, Order, Route, UnknownKey, When};
use crate::support::KEY;
use crate::support::stub::{Answer, Asked, answer, json as api, page};

/// Rows of which another one says nearly the same: the soak alone runs them.
const SOAK: &[&str] = &[
    "ids are strings with blanks",
    "writes answer ids that are objects",
    "pages: next counts pages",
    "pages: the count is wrong",
    "pages: next is an object",
    "histories: shown after 0.3 s",
    "a property is refused under data",
    "a property is refused in a list of sentences",
    "bodies are declared identity",
    "bodies are UTF-16, big end first",
    "bodies are declared nothing",
    "writes are answered in deflate and brotli",
    "HTTP/1.1 without a length",
    "each ninth answer has a folded header",
    "connections are closed after each answer, as said",
    "some heads come too slowly",
    "each ninth length differs from itself",
    "each ninth chunk is no number",
    "each ninth answer asks for another protocol",
    "each of 460 to 499 in turn",
    "each of 530 to 599 in turn",
    "objects stand alone in a list",
    "a header of 60 KiB and 90 small ones",
];

/// One row.
pub(in crate::account) struct Row {
    pub(in crate::account) name: &'static str,
    pub(in crate::account) behaviour: Behaviour,
    /// More of the sink's table.
    pub(in crate::account) settings: &'static str,
    /// Reasons of dead letters that the row justifies.
    pub(in crate::account) dead_letters: &'static [&'static str],
    /// What the log must say.
    pub(in crate::account) says: &'static [&'static str],
    pub(in crate::account) exit_code: i32,
    pub(in crate::account) allowed: Allowed,
    pub(in crate::account) length: Length,
    /// How soon the entries of all users but the first twelve must have been taken.
    pub(in crate::account) others_within: Option<Duration>,
}

/// Which test runs a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::account) enum Length {
    /// Both.
    Short,
    /// The soak alone.
    Soak,
}

/// What a row cannot avoid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::account) enum Allowed {
    Nothing,
    /// Nothing tells whether an event arrived.
    Doubles,
}

fn row(name: &'static str, behaviour: Behaviour) -> Row {
    Row {
        name,
        behaviour,
        settings: "",
        dead_letters: &[],
        says: &[],
        exit_code: 0,
        allowed: Allowed::Nothing,
        length: Length::Short,
        others_within: None,
    }
}

impl Row {
    fn with(mut self, settings: &'static str) -> Self {
        self.settings = settings;
        self
    }

    fn says(mut self, words: &'static [&'static str]) -> Self {
        self.says = words;
        self
    }

    fn soak(mut self) -> Self {
        self.length = Length::Soak;
        self
    }

    fn doubles(mut self) -> Self {
        self.allowed = Allowed::Doubles;
        self
    }

    fn dead(mut self, reasons: &'static [&'static str]) -> Self {
        self.dead_letters = reasons;
        self
    }
}

const WRITES: &[Route] = &[
    Route::Upsert,
    Route::UserCreate,
    Route::UserUpdate,
    Route::Event,
    Route::View,
    Route::CompanyUpsert,
    Route::CompanyCreate,
    Route::CompanyUpdate,
    Route::AddMember,
];
const ALL: &[Route] = &[];

fn usual() -> Behaviour {
    Behaviour::default()
}

fn plain(status: u16, text: &'static str) -> impl Fn(u16, &Value) -> Answer + Send + Sync {
    move |_, _| answer(status, &[("Content-Type", "text/plain")], text)
}

fn status(status: u16) -> impl Fn(u16, &Value) -> Answer + Send + Sync {
    move |_, _| api(status, r#"{"detail":"no"}"#)
}

fn web_page(status: u16) -> impl Fn(u16, &Value) -> Answer + Send + Sync {
    move |_, _| page(status)
}

fn seconds(from: f64, to: f64) -> When {
    When::Between(Duration::from_secs_f64(from), Duration::from_secs_f64(to))
}

/// Calls `change` with each value under a key, wherever it stands.
fn each_key(value: &mut Value, key: &str, change: &dyn Fn(&mut Value)) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if name == key {
                    change(value);
                } else {
                    each_key(value, key, change);
                }
            }
        }
        Value::Array(array) => array.iter_mut().for_each(|item| each_key(item, key, change)),
        _ => {}
    }
}

fn attribute_list(change: impl Fn(&mut Value)) -> impl Fn(Route, &mut Value) {
    move |route, value| {
        if route == Route::AttributeList {
            change(value);
        }
    }
}

fn reshaped(reshape: fn(Route, &mut Value)) -> Behaviour {
    Behaviour { reshape: Some(reshape), ..usual() }
}

/// All rows.
pub(in crate::account) fn all() -> Vec<Row> {
    // Those that take longest come first.
    [
        shapes::rows(),
        delays::stuck(),
        visibility(),
        statuses::rows(),
        delays::throttles(),
        delays::histories(),
        wire::rows(),
        successes(),
        lists(),
        refusals(),
        companies(),
        closed(),
        searches(),
        strangers(),
        bodies(),
    ]
    .into_iter()
    .flatten()
    .map(|row| if SOAK.contains(&row.name) { row.soak() } else { row })
    .collect()
}

/// Successes that look otherwise.
fn successes() -> Vec<Row> {
    let on_writes = |make: fn() -> Behaviour| make();
    let mut rows = vec![row("as the reference says", on_writes(usual))];
    for (name, code, text) in [
        ("writes answered 200 OK as text", 200, "OK"),
        ("writes answered 201 without a body", 201, ""),
        ("writes answered 204", 204, ""),
        ("writes answered 202 with a number", 202, "1"),
        ("writes answered 200 null", 200, "null"),
        ("writes answered 200 with half an object", 200, "{\"id\":"),
    ] {
        rows.push(row(name, usual().on(WRITES, When::Always, Effect::Applied, plain(code, text))));
    }
    rows.push(row("a byte order mark before JSON", Behaviour { prefix: "\u{feff}", ..usual() }));
    rows.push(row(
        "the upsert answers the whole user",
        Behaviour { upsert_answers_user: true, ..usual() },
    ));
    rows.push(row(
        "ids are floats",
        reshaped(|_, value| {
            each_key(value, "id", &|id| {
                if let Some(number) = id.as_u64() {
                    *id = json!(number as f64);
                }
            })
        }),
    ));
    rows.push(row(
        "ids are strings",
        reshaped(|_, value| {
            each_key(value, "id", &|id| {
                if let Some(number) = id.as_u64() {
                    *id = json!(number.to_string());
                }
            })
        }),
    ));
    rows.push(row(
        "writes answer no id",
        reshaped(|route, value| {
            let is_write = WRITES.contains(&route);
            if let (true, Some(object)) = (is_write, value.as_object_mut()) {
                object.remove("id");
            }
        }),
    ));
    rows.push(row(
        "the upsert does not say created",
        reshaped(|route, value| {
            let object = value.as_object_mut();
            if let (Route::Upsert, Some(object)) = (route, object) {
                object.remove("created");
            }
        }),
    ));
    rows.push(row(
        "the first answer to an upsert is 409",
        usual().on(&[Route::Upsert], When::First(3), Effect::Applied, status(409)),
    ));
    rows
}

/// Other shapes of the list of attributes.
fn lists() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name, reshape: fn(Route, &mut Value)| rows.push(row(name, reshaped(reshape)));
    add("attributes: a plain array", |route, value| {
        attribute_list(|value| *value = value["results"].take())(route, value);
    });
    add("attributes: under data", |route, value| {
        attribute_list(|value| *value = json!({"data": value["results"].take()}))(route, value);
    });
    add("attributes: under attributes", |route, value| {
        attribute_list(|value| *value = json!({"attributes": value["results"].take()}))(
            route, value,
        );
    });
    add("attributes: an object by name", |route, value| {
        attribute_list(|value| {
            let items = value["results"].take();
            let by_name = items
                .as_array()
                .unwrap()
                .iter()
                .map(|item| (item["name_std"].as_str().unwrap().to_owned(), item.clone()));
            *value = Value::Object(by_name.collect());
        })(route, value);
    });
    add("attributes: content_type in capitals", |route, value| {
        attribute_list(|value| {
            each_key(value, "content_type", &|kind| {
                *kind = json!(kind.as_str().unwrap().to_uppercase());
            })
        })(route, value);
    });
    add("attributes: content_type is user", |route, value| {
        attribute_list(|value| {
            each_key(value, "content_type", &|kind| {
                if kind == "clientuser" {
                    *kind = json!("user");
                }
            })
        })(route, value);
    });
    add("attributes: content_type is a number", |route, value| {
        attribute_list(|value| each_key(value, "content_type", &|kind| *kind = json!(17)))(
            route, value,
        );
    });
    add("attributes: value_type in capitals", |route, value| {
        attribute_list(|value| {
            each_key(value, "value_type", &|kind| {
                *kind = json!(kind.as_str().unwrap().to_uppercase());
            })
        })(route, value);
    });
    add("attributes: next is its own page", |route, value| {
        attribute_list(|value| value["next"] = json!("attributes/?cursor=0"))(route, value);
    });
    let page_size = |name, reshape: Option<fn(Route, &mut Value)>| {
        row(name, Behaviour { page_size: 1, reshape, ..usual() })
    };
    rows.push(page_size("attributes: one on a page, next by path", None));
    rows.push(page_size(
        "attributes: next is a query",
        Some(|_, value| {
            if let Some(next) = value["next"].as_str() {
                value["next"] = json!(next.split_once('?').unwrap().1);
            }
        }),
    ));
    rows.push(page_size(
        "attributes: next is a query with its mark",
        Some(|_, value| {
            if let Some(next) = value["next"].as_str() {
                value["next"] = json!(format!("?{}", next.split_once('?').unwrap().1));
            }
        }),
    ));
    let list = &[Route::AttributeList];
    for (name, code) in
        [("attributes: 500 for a while", 500), ("attributes: a web page for a while", 200)]
    {
        let answer: MakeAnswer = match code {
            200 => Box::new(web_page(200)),
            _ => Box::new(status(code)),
        };
        let behaviour = usual().on(list, When::First(3), Effect::NotApplied, answer);
        rows.push(row(name, behaviour));
    }
    rows
}

/// Values and keys that are refused.
fn refusals() -> Vec<Row> {
    vec![
        row(
            "unknown keys are refused by name",
            Behaviour { unknown_key: UnknownKey::Refused, ..usual() },
        ),
        row("unknown keys are stored", Behaviour { unknown_key: UnknownKey::Stored, ..usual() }),
        row("a value is refused by name", Behaviour { refused_value: Some("seats"), ..usual() }),
        row(
            "an attribute that exists is answered 400",
            usual().on(&[Route::AttributeCreate], When::Always, Effect::Applied, status(400)),
        ),
        row(
            "creating attributes is forbidden",
            usual().on(&[Route::AttributeCreate], When::Always, Effect::NotApplied, status(403)),
        ),
        row(
            "one event is refused with 400",
            usual().on(&[Route::Event], When::Holds("\"e10\""), Effect::NotApplied, status(400)),
        )
        .dead(&["status_400", "status_413"]),
        row(
            "one event is refused and the key is echoed",
            usual().on(&[Route::Event], When::Holds("\"e10\""), Effect::NotApplied, |_, _| {
                api(400, &format!(r#"{{"detail":"bad request of Token {KEY}"}}"#))
            }),
        )
        .dead(&["status_400", "status_413"]),
        row(
            "one event is always answered 500",
            usual().on(&[Route::Event], When::Holds("\"e10\""), Effect::NotApplied, status(500)),
        )
        .with("delivery = { poison_attempts = 3, poison_after_secs = 2 }")
        .dead(&["poison"]),
        row(
            "events are answered 413 for one record",
            usual().on(&[Route::Event], When::Holds("\"e10\""), Effect::NotApplied, status(413)),
        )
        .dead(&["status_400", "status_413"]),
    ]
}

/// Companies and members.
fn companies() -> Vec<Row> {
    let again = |name, code| row(name, Behaviour { member_again: code, ..usual() });
    let put = |name, code| {
        row(
            name,
            usual().on(&[Route::CompanyUpsert], When::Always, Effect::NotApplied, status(code)),
        )
    };
    vec![
        again("a member added again: 400", 400),
        again("a member added again: 403", 403),
        again("a member added again: 405", 405),
        again("a member added again: 409", 409),
        put("PUT companies-by-id is answered 405", 405)
            .says(&["does not update companies by your own id"]),
        put("PUT companies-by-id is answered 501", 501),
        row(
            "a company created is answered 409 at first",
            usual().on(&[Route::CompanyCreate], When::First(2), Effect::Applied, status(409)),
        ),
        row(
            "add_member without the user is answered 404 at first",
            usual().on(&[Route::AddMember], When::First(2), Effect::NotApplied, status(404)),
        ),
    ]
}

/// Writes that are seen late.
fn visibility() -> Vec<Row> {
    let unseen = |name, seconds| {
        row(name, Behaviour { unseen_for: Duration::from_secs(seconds), ..usual() })
    };
    vec![unseen("users are seen after 3 s", 3), unseen("users are seen after 10 s", 10)]
}

/// Routes that are closed, for a time or for good.
fn closed() -> Vec<Row> {
    let forbidden =
        |name, route, when| row(name, usual().on(&[route], when, Effect::NotApplied, status(403)));
    vec![
        forbidden("page views are forbidden for 3 s", Route::View, seconds(0.2, 3.2)),
        forbidden("events are forbidden for 3 s", Route::Event, seconds(0.2, 3.2)),
        forbidden("members are forbidden for 3 s", Route::AddMember, seconds(0.2, 3.2)),
        forbidden("page views are forbidden for good", Route::View, When::Always)
            .with("delivery = { route_closed_secs = 2 }")
            .dead(&["route_closed", "rejected"]),
        forbidden("events are forbidden for good", Route::Event, When::Always)
            .with("delivery = { route_closed_secs = 2 }")
            .dead(&["route_closed", "rejected"]),
    ]
}

/// Searches for a person that are not answered: each user is created, and the cure is named.
fn searches() -> Vec<Row> {
    let search = |name, answer: MakeAnswer| {
        let behaviour = usual().on(&[Route::UserSearch], When::Always, Effect::NotApplied, answer);
        row(name, behaviour)
            .with("users = { match_by = [\"email\"] }")
            .says(&["does not answer searches by this key", "match_by = []"])
    };
    vec![
        search("searches are answered 405", Box::new(status(405))),
        search("searches are answered 501", Box::new(status(501))),
        search("searches are answered 403", Box::new(status(403))),
        search("searches are answered 404 as text", Box::new(plain(404, "no such page"))),
        search("searches are answered 200 as text", Box::new(plain(200, "OK"))),
        search("searches are answered by a web page", Box::new(web_page(404))),
        search("searches are always answered 500", Box::new(status(500))),
    ]
}

/// Answers that are not the API's, for two seconds of the run.
fn strangers() -> Vec<Row> {
    let mut rows = Vec::new();
    let for_a_while = seconds(0.3, 2.3);
    for (name, code) in [
        ("a web page with 200 for 2 s", 200),
        ("a web page with 400 for 2 s", 400),
        ("a web page with 402 for 2 s", 402),
        ("a web page with 403 for 2 s", 403),
        ("a web page with 404 for 2 s", 404),
        ("a web page with 418 for 2 s", 418),
        ("a web page with 451 for 2 s", 451),
        ("a web page with 503 for 2 s", 503),
    ] {
        let behaviour = usual().on(ALL, for_a_while, Effect::NotApplied, web_page(code));
        rows.push(row(name, behaviour));
    }
    for (name, code) in [
        ("redirects with 301 for 2 s", 301),
        ("redirects with 302 for 2 s", 302),
        ("redirects with 307 for 2 s", 307),
        ("redirects with 308 for 2 s", 308),
    ] {
        let there = move |_, _: &Value| answer(code, &[("Location", "http://127.0.0.1:9/x/")], "");
        rows.push(row(name, usual().on(ALL, for_a_while, Effect::NotApplied, there)));
    }
    rows
}

/// Bodies that a client must not trust.
fn bodies() -> Vec<Row> {
    vec![
        row(
            "an endless body in mid-run",
            usual().on(&[Route::Upsert], When::Every(9), Effect::Applied, |_, _| Answer::Endless {
                head: b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n".to_vec(),
                again: vec![b' '; 1 << 16],
                times: 200,
            }),
        ),
        row(
            "endless 1xx answers in mid-run",
            usual().on(&[Route::Upsert], When::Every(9), Effect::Applied, |_, _| Answer::Endless {
                head: Vec::new(),
                again: b"HTTP/1.1 102 Processing\r\n\r\n".to_vec(),
                times: 100_000,
            }),
        ),
        row(
            "half a header in mid-run",
            usual().on(WRITES, When::Every(9), Effect::Applied, |_, _| Answer::Endless {
                head: b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(),
                again: Vec::new(),
                times: 0,
            }),
        ),
        row(
            "no HTTP at all in mid-run",
            usual().on(WRITES, When::Every(9), Effect::Applied, |_, _| Answer::Endless {
                head: b"220 mail.example ESMTP\r\n".to_vec(),
                again: Vec::new(),
                times: 0,
            }),
        ),
    ]
}
