//! What a record costs: the preset, a table that does the same, a table that wants none of the
//! records, beside parsing to a tree and printing it again.
//!
//! The numbers of one run compare with each other, not with those of another machine.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use usercom_sink::config::fault::ConfigPath;
use usercom_sink::config::mapping::Rule;
use usercom_sink::config::sink::Preset;
use usercom_sink::mapping::{Input, Plan};

/// The preset's work, written as rules.
const TABLE: &str = r#"
[[mapping]]
call = "identify"
when = { ".type" = "identify" }
[mapping.fields]
user_id = { path = [".userId", ".user_id", ".traits.userId", ".traits.id"] }
anonymous_id = ".anonymousId"
message_id = ".messageId"
timestamp = { path = [".timestamp", ".originalTimestamp", ".sentAt", ".receivedAt"] }
"traits.*" = [".context.traits", ".traits"]
"context.*" = ".context"
[[mapping]]
call = "page"
when = { ".type" = "page" }
[mapping.fields]
user_id = { path = [".userId", ".user_id"] }
anonymous_id = ".anonymousId"
message_id = ".messageId"
timestamp = { path = [".timestamp", ".originalTimestamp", ".sentAt", ".receivedAt"] }
name = { path = [".name", ".properties.name"] }
category = { path = [".category", ".properties.category"] }
"properties.*" = ".properties"
"context.*" = ".context"
[[mapping]]
call = "track"
when = { ".type" = "track" }
[mapping.fields]
user_id = { path = [".userId", ".user_id"] }
anonymous_id = ".anonymousId"
message_id = ".messageId"
timestamp = { path = [".timestamp", ".originalTimestamp", ".sentAt", ".receivedAt"] }
event = ".event"
"properties.*" = ".properties"
"context.*" = ".context"
[[mapping]]
call = "group"
when = { ".type" = "group" }
[mapping.fields]
user_id = { path = [".userId", ".user_id"] }
anonymous_id = ".anonymousId"
message_id = ".messageId"
timestamp = { path = [".timestamp", ".originalTimestamp", ".sentAt", ".receivedAt"] }
group_id = { path = [".groupId", ".traits.groupId"] }
"traits.*" = ".traits"
"context.*" = ".context"
"#;

const NOTHING: &str = r#"
[[mapping]]
call = "track"
when = { ".type" = "order", ".order.status" = { in = ["paid", "sent"] } }
[mapping.fields]
user_id = ".user.id"
event = ".order.status"
"properties.*" = ".order"
"#;

#[derive(serde::Deserialize)]
struct Table {
    mapping: Vec<Rule>,
}

fn plan(table: &str, preset: Option<Preset>) -> Plan {
    let table: Table = toml::from_str(table).expect("the table is valid");
    Plan::compile(&ConfigPath::default(), &table.mapping, preset).expect("the table is sound")
}

/// The sample beside the crate, if it is there, else records like it.
fn records() -> (&'static str, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mix-1000.ndjson");
    match std::fs::read_to_string(&file) {
        Ok(text) => ("mix-1000.ndjson", text),
        Err(_) => ("generated records (the sample mix-1000.ndjson is absent)", generated()),
    }
}

/// A thousand events of about 1.2 KB, always the same.
fn generated() -> String {
    let mut out = String::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for n in 0..1000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let rest = match n % 20 {
            0..3 => format!(
                r#""type":"identify","traits":{{"email":"u{seed}@example.com","first_name":"Ada","plan":"pro","logins":{},"address":{{"city":"Łódź","country":"PL"}},"tags":["a","b"]}}"#,
                seed % 500
            ),
            3..9 => r#""type":"page","name":"Home","category":"shop","properties":{"path":"/","url":"https://shop.example.com/","title":"Example Shop"}"#.to_owned(),
            9..19 => format!(
                r#""type":"track","event":"Product Viewed","properties":{{"sku":"sku-{}","price":{}.5,"currency":"EUR","quantity":1}}"#,
                seed % 2000,
                seed % 300
            ),
            _ => r#""type":"group","groupId":"acct-1","traits":{"name":"Acme","employees":12}"#.to_owned(),
        };
        writeln!(
            out,
            r#"{{"messageId":"msg-{n}-{seed:x}","channel":"web","anonymousId":"anon-{seed:x}","context":{{"library":{{"name":"analytics.js","version":"2.11.1"}},"userAgent":"Mozilla/5.0 (iPhone; CPU iPhone OS 17_6_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1","os":{{"name":"iOS","version":"17.6.1"}},"device":{{"type":"ios","manufacturer":"Apple","model":"iPhone15,2","id":"{seed:x}"}},"locale":"fr-FR","screen":{{"width":393,"height":852,"density":3}},"ip":"203.0.113.103","timezone":"Europe/Paris","page":{{"path":"/account","referrer":"","search":"","title":"Example Shop","url":"https://shop.example.com/account"}},"campaign":{{}},"network":{{"carrier":"T-Mobile","cellular":true,"wifi":false}}}},"originalTimestamp":"2026-08-20T08:00:00.687Z","timestamp":"2026-08-20T08:00:00.687Z","sentAt":"2026-08-20T08:00:00.942Z","integrations":{{"All":true}},"userId":"user-{}",{rest}}}"#,
            seed % 100
        )
        .expect("writing to a string cannot fail");
    }
    out
}

fn main() {
    let (source, text) = records();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let mut criterion = Criterion::default()
        .configure_from_args()
        .without_plots()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    let preset = plan("mapping = []", Some(Preset::Segment));
    let table = plan(TABLE, None);
    let nothing = plan(NOTHING, None);
    let map = |plan: &Plan, line: &str| {
        let input = Input { body: line.as_bytes(), meta: None };
        black_box(plan.map(input).expect("the records are sound"));
    };
    let tree = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).expect("the records are sound");
        black_box(value.to_string());
    };
    type Run<'a> = Box<dyn Fn(&str) + 'a>;
    let runs: [(&str, Run<'_>); 4] = [
        ("tree and back", Box::new(tree)),
        ("preset segment", Box::new(|line| map(&preset, line))),
        ("equivalent table", Box::new(|line| map(&table, line))),
        ("unwanted records", Box::new(|line| map(&nothing, line))),
    ];
    let mut means = Vec::new();
    let mut group = criterion.benchmark_group("mapping");
    group.throughput(Throughput::Elements(lines.len() as u64));
    for (name, run) in &runs {
        let mut best = Duration::MAX;
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|rounds| {
                let start = clock();
                for _ in 0..rounds {
                    lines.iter().for_each(|line| run(line));
                }
                let took = start.elapsed();
                best = best.min(took / u32::try_from(rounds.max(1)).unwrap_or(u32::MAX));
                took
            });
        });
        means.push((*name, best.as_nanos() as f64 / lines.len() as f64));
    }
    group.finish();
    report(source, lines.len(), text.len(), &means);
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

fn report(source: &str, records: usize, bytes: usize, means: &[(&str, f64)]) {
    let mut out =
        format!("\n{records} records, {bytes} bytes, from {source}; best of the samples:\n");
    let tree = means.first().map_or(1.0, |(_, ns)| *ns);
    for (name, ns) in means {
        writeln!(out, "{name:>18}: {ns:>8.0} ns a record, {:.2} of a tree and back", ns / tree)
            .expect("writing to a string cannot fail");
    }
    std::io::Write::write_all(&mut std::io::stdout(), out.as_bytes())
        .expect("stdout takes the report");
}
