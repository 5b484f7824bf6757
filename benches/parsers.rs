//! Whether another JSON parser would pay: serde_json and sonic-rs read the same records as far as
//! the mapping needs them read, and are asked what they take for JSON.
//!
//! Not the mapping: `mapping` measures that. Contestants take turns and the best turn of each
//! counts, so that ratios hold on a busy machine.

#[path = "support/mix.rs"]
mod mix;

use std::fmt;
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

const TURNS: usize = 60;

/// Texts at the edges of JSON, and whether they are JSON by its grammar.
const EDGES: [(&str, &str, bool); 9] = [
    ("number beyond f64", "[1e999]", true),
    ("half a surrogate pair", r#"["\ud800"]"#, true),
    ("leading zero", "[01]", false),
    ("bare fraction", "[1.]", false),
    ("unknown escape", r#"["\x"]"#, false),
    ("control character", "[\"\u{1}\"]", false),
    ("trailing comma", r#"{"a":1,}"#, false),
    ("text behind the value", "{} x", false),
    ("wrong bracket", r#"{"a":[1}}"#, false),
];

/// The keys of an object one by one, as texts, each value passed over: what an unwanted record
/// costs at least.
struct Keys;

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                while let Some(key) = map.next_key::<&str>()? {
                    black_box(key);
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(Keys)
            }
        }
        deserializer.deserialize_map(Walk)
    }
}

type Contestant = (&'static str, fn(&str));

const CONTESTANTS: [Contestant; 5] = [
    ("serde_json, validate", |line| {
        black_box(serde_json::from_str::<IgnoredAny>(line).expect("the records are sound"));
    }),
    ("sonic-rs, validate", |line| {
        black_box(sonic_rs::from_str::<IgnoredAny>(line).expect("the records are sound"));
    }),
    ("serde_json, keys of the top", |line| {
        black_box(serde_json::from_str::<Keys>(line).expect("the records are sound"));
    }),
    ("sonic-rs, keys of the top", |line| {
        black_box(sonic_rs::from_str::<Keys>(line).expect("the records are sound"));
    }),
    ("sonic-rs, its own walk of the top", |line| {
        for entry in sonic_rs::to_object_iter(line) {
            black_box(entry.expect("the records are sound"));
        }
    }),
];

/// What a process is called with that reads deep nesting, by parser.
const DEEP: [&str; 2] = ["deep-serde_json", "deep-sonic-rs"];

fn main() {
    if let Some(parser) = std::env::args().find(|argument| DEEP.contains(&&**argument)) {
        return read_deep(&parser);
    }
    let (source, text) = mix::records();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let mut best = [Duration::MAX; CONTESTANTS.len()];
    for _ in 0..TURNS {
        for ((_, read), best) in CONTESTANTS.iter().zip(&mut best) {
            let start = clock();
            lines.iter().for_each(|line| read(line));
            *best = start.elapsed().min(*best);
        }
    }
    let mut out = format!("\n{} records from {source}; best of {TURNS} turns:\n", lines.len());
    for ((name, _), took) in CONTESTANTS.iter().zip(best) {
        let ratio = took.as_secs_f64() / best[0].as_secs_f64();
        let ns = took.as_nanos() as f64 / lines.len() as f64;
        out += &format!("{name:>36}: {ns:>6.0} ns a record, {ratio:.2} of serde_json\n");
    }
    out += "\nwhat is taken for JSON where a value is passed over:\n";
    for (name, text, is_json) in EDGES {
        let serde = serde_json::from_str::<IgnoredAny>(text).is_ok();
        let sonic = sonic_rs::from_str::<IgnoredAny>(text).is_ok();
        out += &format!("{name:>36}: JSON {is_json}, serde_json {serde}, sonic-rs {sonic}\n");
    }
    for (name, wanted) in [("serde_json", DEEP[0]), ("sonic-rs", DEEP[1])] {
        let words = if survives(wanted) { "taken" } else { "the process dies of it" };
        out += &format!("{:>36}: {name}: {words}\n", "100,000 brackets, one in another");
    }
    std::io::stdout().write_all(out.as_bytes()).expect("stdout takes the report");
}

fn read_deep(parser: &str) {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let read = match parser == DEEP[0] {
        true => serde_json::from_str::<IgnoredAny>(&deep).is_ok(),
        false => sonic_rs::from_str::<IgnoredAny>(&deep).is_ok(),
    };
    assert!(read, "it is JSON");
}

/// Whether a process of its own can read deep nesting.
fn survives(parser: &str) -> bool {
    let this = std::env::current_exe().expect("the bench knows where it is");
    let output = std::process::Command::new(this).arg(parser).output();
    output.expect("it starts").status.success()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> Instant {
    Instant::now()
}
