//! Accounts that answer otherwise than the documentation says: the built program against a server
//! that follows a script.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use serde_json::{Value, json as value};

use crate::support::stub::{Answer, Asked, Stub, answer, json, page, usual};
use crate::support::{KEY, TestDir, json_of, mix, usercom_sink};

const EVENTS: &str = "/events/";

/// A pipeline into a stub server.
struct Run {
    place: TestDir,
    config: PathBuf,
    output: Output,
    took: Duration,
}

impl Run {
    /// Runs to the end of the records. `sink` is the rest of the sink's table.
    fn once(stub: &Stub, records: &[Value], sink: &str) -> Self {
        let place = TestDir::new();
        place.write("records.ndjson", &mix::lines(records));
        let config = place.pipeline(&stub.endpoint(), sink);
        let begin = Instant::now();
        let output = place.run_once(&config, &[]);
        Self { place, config, output, took: begin.elapsed() }
    }

    /// What became of the sink's records, after a run that ended well.
    fn summary(&self) -> Value {
        json_of(&self.output, 0)["sinks"]["crm"].clone()
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn letters(&self) -> Vec<Value> {
        let config = self.config.to_str().unwrap();
        let listed = usercom_sink(&["dead-letters", "list", "-c", config, "--format", "json"]);
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let text = String::from_utf8(listed.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn track(user: &str, event: &str) -> Value {
    value!({
        "type": "track", "userId": user, "event": event, "timestamp": "2024-05-21T10:11:12Z",
    })
}

const SINK: &str =
    "preset = \"segment\"\nrequest = { timeout_secs = 5, retry_max_duration_secs = 4 }";

/// Quick ones, for what fails many times.
fn quick(delivery: &str) -> String {
    format!(
        "preset = \"segment\"\n\
         request = {{ timeout_secs = 5, retry_max_duration_secs = 1 }}\n\
         delivery = {{ {delivery} }}"
    )
}

/// Shows the events that were answered with 201 in the histories of their users.
fn with_histories(
    script: impl Fn(&Asked) -> Answer + Send + Sync,
) -> impl Fn(&Asked) -> Answer + Send + Sync {
    let taken = Mutex::new(Vec::<(String, Value)>::new());
    move |asked| {
        let path = asked.path.split('?').next().unwrap_or_default();
        if asked.is("GET", EVENTS) {
            let taken = taken.lock().unwrap();
            let of_user = taken.iter().filter(|(of, _)| of == path).map(|(_, event)| event);
            let results: Vec<&Value> = of_user.collect();
            return json(200, &value!({ "next": null, "results": results }).to_string());
        }
        let answer = script(asked);
        if asked.is("POST", EVENTS) && matches!(answer, Answer::Http { status: 201, .. }) {
            let event = serde_json::from_str(&asked.body).unwrap();
            taken.lock().unwrap().push((path.to_owned(), event));
        }
        answer
    }
}

/// Answers the first `times` event posts with `first`, everything else as usual.
fn at_first(times: usize, first: Answer) -> impl Fn(&Asked) -> Answer + Send + Sync {
    let count = AtomicUsize::new(0);
    move |asked| match asked.is("POST", EVENTS) && count.fetch_add(1, Ordering::SeqCst) < times {
        true => first.clone(),
        false => usual(asked),
    }
}

#[test]
fn retry_after_with_a_fraction_is_rounded_up() {
    // Field case 13: after `Retry-After: 3.7` the second attempt comes 4 s later, for 429 and 503.
    for status in [429, 503] {
        let refusal = answer(status, &[("Retry-After", "3.7")], "{}");
        let stub = Stub::start(at_first(1, refusal));
        let run = Run::once(&stub, &[track("u", "e1")], SINK);
        assert_eq!(run.summary()["delivered"], 1);
        let posts = stub.asked("POST", EVENTS);
        assert_eq!(posts.len(), 2, "{status}");
        let wait = posts[1].at - posts[0].at;
        let range = Duration::from_millis(3_900)..Duration::from_millis(5_500);
        assert!(range.contains(&wait), "{status}: {wait:?}");
    }
}

#[test]
fn redirects_and_web_pages_during_a_run_lose_nothing() {
    // Field case 13: what is not the API's answer proves nothing about the record: it is tried
    // again and delivered once, and the key does not follow a redirect to another host.
    let elsewhere = Stub::start(usual);
    let endpoint = elsewhere.endpoint();
    let there = [("Location", endpoint.as_str()), ("Content-Type", "text/html")];
    let html = [("Content-Type", "text/html")];
    for first in [
        answer(302, &[("Location", "/login/")], "<html>moved</html>"),
        answer(307, &there, ""),
        answer(308, &there, "<html>moved</html>"),
        page(200),
        page(400),
        page(402),
        page(404),
        page(451),
        answer(410, &html, "Wartungsarbeiten"),
    ] {
        let what = format!("{first:?}");
        let stub = Stub::start(at_first(2, first));
        let run = Run::once(&stub, &[track("u", "e1")], &quick(""));
        let summary = run.summary();
        assert_eq!(
            (&summary["delivered"], &summary["dead_letters"]),
            (&value!(1), &value!({})),
            "{what}"
        );
        assert_eq!(stub.asked("POST", EVENTS).len(), 3, "{what}");
    }
    assert!(elsewhere.seen().is_empty());
}

#[test]
fn success_without_json_is_delivered_once() {
    // A 2xx of any text but a web page is a success: no event, page view, profile or membership is
    // sent twice for it.
    let script = |asked: &Asked| match asked.method.as_str() {
        "GET" => usual(asked),
        _ => answer(200, &[("Content-Type", "text/plain")], "OK"),
    };
    let stub = Stub::start(script);
    let records = [
        value!({"type": "identify", "userId": "u", "traits": {"email": "a@b.pl", "plan": "x"}}),
        track("u", "e1"),
        value!({"type": "page", "userId": "u", "properties": {"url": "https://a.b/c"}}),
        value!({"type": "group", "userId": "u", "groupId": "g", "traits": {"name": "G"}}),
    ];
    let run = Run::once(&stub, &records, &quick(""));
    assert_eq!(run.summary()["delivered"], 4, "{}", run.stderr());
    assert_eq!(stub.asked("POST", EVENTS).len(), 1);
    assert_eq!(stub.asked("POST", "site-views/").len(), 1);
    assert_eq!(stub.asked("POST", "add_member/").len(), 1);
    assert!(run.letters().is_empty());
}

#[test]
fn poisoned_record_becomes_a_dead_letter_and_later_records_are_delivered() {
    // Field case 17: the run ends, the poisoned record is a dead letter with the reason `poison`,
    // everything else arrives once and in order, and the log names the user.
    let stub = Stub::start(with_histories(|asked| match asked.body.contains("poison") {
        true => answer(500, &[("Content-Type", "application/json")], "<h1>Server Error (500)</h1>"),
        false => usual(asked),
    }));
    let events = [("u1", "a"), ("u1", "poison"), ("u1", "after1"), ("u2", "b"), ("u1", "after2")];
    let records: Vec<Value> = events.iter().map(|(user, event)| track(user, event)).collect();
    let sink = quick("poison_attempts = 5, poison_after_secs = 2");
    let run = Run::once(&stub, &records, &sink);
    let summary = run.summary();
    assert_eq!(
        (&summary["delivered"], &summary["dead_letters"]),
        (&value!(4), &value!({"poison": 1}))
    );
    let letters = run.letters();
    assert_eq!(letters[0]["reason"], "poison", "{letters:?}");
    assert_eq!(letters[0]["status"], 500, "{letters:?}");
    let names: Vec<String> = stub
        .asked("POST", "users-by-id/u1/events/")
        .iter()
        .map(|asked| {
            serde_json::from_str::<Value>(&asked.body).unwrap()["name"].as_str().unwrap().to_owned()
        })
        .filter(|name| name != "poison")
        .collect();
    assert_eq!(names, ["a", "after1", "after2"]);
    assert!(run.stderr().contains("user=\"u1\""), "{}", run.stderr());
}

#[test]
fn poisoned_users_do_not_block_others() {
    // 40 users whose first event always fails fill `max_in_flight`; all 40 others are served.
    let stub = Stub::start(|asked| match asked.body.contains("poison") {
        true => json(500, "{}"),
        false => usual(asked),
    });
    let mut records = Vec::new();
    for user in 0..40 {
        records.extend((0..3).map(|n| track(&format!("bad{user}"), &format!("poison{n}"))));
    }
    records.extend((0..40).map(|user| track(&format!("good{user}"), "fine")));
    let place = TestDir::new();
    place.write("records.ndjson", &mix::lines(&records));
    let config = place.pipeline(&stub.endpoint(), &quick("max_in_flight = 40"));
    let mut child = crate::support::binary()
        .args(["run", "-c", config.to_str().unwrap(), "--once"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let served = || -> BTreeSet<String> {
        let posts = stub.asked("POST", "users-by-id/good");
        posts.into_iter().map(|asked| asked.path).collect()
    };
    while served().len() < 40 && begin.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(served().len(), 40);
}

#[test]
fn full_outage_makes_no_dead_letters() {
    // While no request succeeds nothing is poison, however often and long requests fail.
    let begin = Instant::now();
    let stub = Stub::start(move |asked| {
        let since = begin.elapsed().as_secs();
        match (1..7).contains(&since) {
            true => json(500, "{}"),
            false => usual(asked),
        }
    });
    let records: Vec<Value> =
        (0..3000).map(|n| track(&format!("u{}", n % 20), &format!("e{n}"))).collect();
    let sink = quick("poison_attempts = 2, poison_after_secs = 1")
        .replace("timeout_secs", "rate_limit_num = 300, timeout_secs");
    let run = Run::once(&stub, &records, &sink);
    let summary = run.summary();
    assert_eq!(summary["dead_letters"], value!({}), "{summary}");
    assert_eq!(summary["delivered"], 3000, "{summary}");
}

#[test]
fn forbidden_route_is_closed_and_others_deliver() {
    // With a key that works, a 403 on events stops events only: profiles and page views arrive, and
    // after `route_closed_secs` the events are dead letters with that reason and the remedy.
    let stub = Stub::start(|asked| match asked.is("POST", EVENTS) {
        true => json(403, r#"{"detail":"You do not have permission to perform this action."}"#),
        false => usual(asked),
    });
    let mut records = Vec::new();
    for n in 0..12 {
        records.push(track(&format!("e{n}"), "event"));
        records.push(
            value!({"type": "identify", "userId": format!("i{n}"), "traits": {"email": "a@b.pl"}}),
        );
        records.push(value!({"type": "page", "userId": format!("p{n}"), "properties": {"url": "https://a.b/c"}}));
    }
    let run = Run::once(&stub, &records, &quick("route_closed_secs = 3"));
    let summary = run.summary();
    assert_eq!(
        (&summary["delivered"], &summary["dead_letters"]),
        (&value!(24), &value!({"route_closed": 12}))
    );
    assert!(run.letters().iter().all(|letter| letter["reason"] == "route_closed"));
    assert!(stub.asked("POST", EVENTS).len() <= 24, "{}", stub.asked("POST", EVENTS).len());
    let stderr = run.stderr();
    assert!(
        stderr.contains("users-by-id/:id/events/") && stderr.contains("App settings"),
        "{stderr}"
    );
}

#[test]
fn forbidden_route_that_is_allowed_again_loses_nothing() {
    // Records wait for a route that is forbidden for a while.
    let stub = Stub::start(at_first(3, json(403, "{}")));
    let records: Vec<Value> = (0..10).map(|n| track(&format!("u{n}"), "event")).collect();
    let run = Run::once(&stub, &records, &quick(""));
    assert_eq!(run.summary()["delivered"], 10, "{}", run.stderr());
    assert!(run.letters().is_empty());
}

#[test]
fn unpaid_account_halts_with_a_message() {
    // 402 drops nothing: the run ends with 77 and names the cause and the remedy.
    let stub = Stub::start(|asked| match asked.method.as_str() {
        "POST" => json(402, r#"{"detail":"Payment required"}"#),
        _ => usual(asked),
    });
    let run = Run::once(&stub, &[track("u", "e1")], &quick(""));
    assert_eq!(run.output.status.code(), Some(77), "{}", run.stderr());
    assert!(run.stderr().contains("payment"), "{}", run.stderr());
    assert!(run.letters().is_empty());
}

#[test]
fn connection_cut_before_the_answer_loses_and_duplicates_nothing() {
    // An event whose connection is cut is looked up, and sent again only because it is not there.
    let stub = Stub::start(at_first(2, Answer::Close));
    let run = Run::once(&stub, &[track("u", "e1")], &quick(""));
    assert_eq!(run.summary()["delivered"], 1);
    assert_eq!(stub.asked("POST", EVENTS).len(), 3);
    // Nothing is known yet of how late histories are, so each look is repeated.
    let looks = stub.asked("GET", EVENTS).len();
    assert!((2..=10).contains(&looks), "{looks}");
}

#[test]
fn server_that_closes_idle_connections_costs_no_time() {
    // 132 records through a server that closes each connection soon after its first answer, without
    // saying so, take seconds, and none is doubled.
    let script = with_histories(usual);
    let stub = Stub::start(move |asked| {
        Answer::ThenClose(Box::new(script(asked)), Duration::from_millis(50))
    });
    let records: Vec<Value> =
        (0..132).map(|n| track(&format!("u{}", n % 5), &format!("e{n}"))).collect();
    let run = Run::once(&stub, &records, SINK);
    assert_eq!(run.summary()["delivered"], 132);
    assert_eq!(stub.asked("POST", EVENTS).len(), 132);
    assert!(run.took < Duration::from_secs(10), "{:?}", run.took);
}

#[test]
fn endless_response_is_bounded() {
    // An answer without end ends at the limit: the event is not sent again, a profile is tried
    // again, and neither takes the memory.
    let endless = |status: u16| {
        Answer::Endless {
        head: format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        .into_bytes(),
        again: [&b"10000\r\n"[..], &[b'a'; 65_536], b"\r\n"].concat(),
        times: 2_000,
    }
    };
    let upserts = AtomicUsize::new(0);
    let stub = Stub::start(move |asked| {
        if asked.is("POST", EVENTS) {
            return endless(201);
        }
        if asked.is("POST", "users/update_or_create/")
            && upserts.fetch_add(1, Ordering::SeqCst) == 0
        {
            return endless(200);
        }
        usual(asked)
    });
    let records = [
        value!({"type": "identify", "userId": "u", "traits": {"email": "a@b.pl"}}),
        track("u", "e1"),
    ];
    let run = Run::once(&stub, &records, &quick(""));
    assert_eq!(run.summary()["delivered"], 2, "{}", run.stderr());
    assert_eq!(stub.asked("POST", EVENTS).len(), 1);
    assert_eq!(stub.asked("POST", "users/update_or_create/").len(), 2);
}

#[test]
fn api_key_echoed_by_the_server_is_not_shown() {
    // A server that puts the token it was sent into its error body: neither dead letters nor logs
    // nor the files of the store hold it.
    let stub = Stub::start(|asked| match asked.is("POST", EVENTS) {
        true => {
            let token = asked.header("authorization").unwrap_or_default().to_owned();
            json(400, &value!({ "detail": format!("not for {token}") }).to_string())
        }
        false => usual(asked),
    });
    let run = Run::once(&stub, &[track("u", "e1")], &quick(""));
    assert_eq!(run.summary()["dead_letters"], value!({"status_400": 1}));
    let letters = value!(run.letters()).to_string();
    assert!(letters.contains("not for Token ***"), "{letters}");
    assert!(!letters.contains(KEY) && !run.stderr().contains(KEY));
    for file in std::fs::read_dir(run.place.path().join("data")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes()));
    }
}

#[test]
fn nul_is_never_sent() {
    // A server that answers 500 to NULs in text gets none, in ids, names, keys and values.
    fn holds_nul(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(holds_nul),
            Value::Object(entries) => {
                entries.iter().any(|(name, value)| name.contains('\0') || holds_nul(value))
            }
            _ => false,
        }
    }
    let stub = Stub::start(|asked| {
        let body = serde_json::from_str(&asked.body).unwrap_or(Value::Null);
        match holds_nul(&body) || asked.path.contains("%00") {
            true => json(500, "{}"),
            false => usual(asked),
        }
    });
    let records = [
        value!({"type": "identify", "userId": "u\0x", "traits": {"email": "a@b.pl", "no\0te": "a\0b", "list": ["\0"]}}),
        value!({"type": "track", "userId": "u\0x", "event": "e\0", "properties": {"a\0b": {"c\0": "\0d"}}}),
        value!({"type": "page", "userId": "u\0x", "properties": {"url": "https://a.b/c\0d"}}),
        value!({"type": "group", "userId": "u\0x", "groupId": "g\0", "traits": {"name": "G\0"}}),
    ];
    let run = Run::once(&stub, &records, &quick(""));
    let summary = run.summary();
    assert_eq!(
        (&summary["delivered"], &summary["dead_letters"]),
        (&value!(4), &value!({})),
        "{}",
        run.stderr()
    );
}
