//! What a record costs on one core, bytes in, encoded request bodies out: the preset and a table
//! that does the same, next to a hand-written typed skeleton, a mapper on `serde_json::Value`,
//! Vector's language (with the feature `bench-vrl`, which takes a while to build), and reading that
//! makes nothing. Then how the cost grows: with the rules of a file, with the size of
//! a record.
//!
//! All contestants take turns in one run, and the best turn of each counts: so their ratios hold
//! on a busy machine, and only the ratios compare with another run. Before anything is timed, the
//! bodies are compared, record by record.

mod dom;
#[path = "../support/mix.rs"]
mod mix;
mod reference;
#[cfg(feature = "bench-vrl")]
mod vrl;

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::Value;
use usercom_sink::config::account::AccountConfig;
use usercom_sink::config::fault::ConfigPath;
use usercom_sink::config::mapping::Rule;
use usercom_sink::config::sink::Preset;
use usercom_sink::mapping::{CompiledMapping, Input};
use usercom_sink::schedule::Op;
use usercom_sink::usercom::{PlanWarnings, Settings, WantedKeys, encoded, plan_call};

/// The program's own, for all contestants.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

fn plan(table: &str, preset: Option<Preset>) -> CompiledMapping {
    let table: Table = toml::from_str(table).expect("the table is valid");
    CompiledMapping::compile(&ConfigPath::default(), &table.mapping, preset)
        .expect("the table is sound")
}

const SETTINGS: Settings = Settings {
    context_fields: true,
    merge_anonymous: false,
    match_by: WantedKeys::NONE,
    account: AccountConfig::SAFE,
};

/// Contestants that others are compared with.
const SKELETON: &str = "typed skeleton, by hand";
const PRESET: &str = "preset segment";
const EQUIVALENT: &str = "equivalent table";
const ON_A_TREE: &str = "mapper on a tree";
const VALIDATE: &str = "validate only";
#[cfg(feature = "bench-vrl")]
const VECTOR: &str = "Vector's language";

/// Turns each contestant gets in the comparison.
const TURNS: usize = 60;

/// The crate's way of a record: mapped, planned, encoded.
fn bodies(plan: &CompiledMapping, line: &str, now: Timestamp, mut each: impl FnMut(&str)) {
    let input = Input { body: line.as_bytes(), meta: None };
    let mapped = plan.map(input).expect("the records are sound");
    let mut notes = PlanWarnings::default();
    for call in &mapped.calls {
        let ops = plan_call(&call.call, &SETTINGS, now, &mut notes).expect("the calls are sound");
        for body in ops.iter().filter_map(|op| encoded(op, now)) {
            each(&body);
        }
    }
}

/// What the crate knows of every user agent of the records: the others get it for nothing, as if
/// they had seen each before.
fn agents(preset: &CompiledMapping, lines: &[&str], now: Timestamp) -> reference::Agents {
    let mut agents = reference::Agents::new();
    for line in lines {
        let mapped = preset.map(Input { body: line.as_bytes(), meta: None });
        for mut call in mapped.expect("the records are sound").calls.into_iter().map(|c| c.call) {
            call.kind = usercom_sink::call::CallKind::Identify;
            let ops = plan_call(&call, &SETTINGS, now, &mut PlanWarnings::default());
            let ops = ops.expect("the calls are sound");
            let Op::Identify { fields, .. } = &ops[0] else {
                unreachable!("made from an identify")
            };
            let get = |name| serde_json::from_str::<String>(fields.get(name)?).ok();
            if let Some(agent) = get("user_agent") {
                agents.insert(agent, (get("browser_family"), get("browser_version")));
            }
        }
    }
    agents
}

/// Fails unless all make the same of every record.
fn compare(plans: &[&CompiledMapping], lines: &[&str], agents: &reference::Agents, now: Timestamp) {
    let tree = |body: &str| {
        let mut tree: Value = serde_json::from_str(body).expect("bodies are JSON");
        if let Some(data) = tree.get_mut("data").and_then(Value::as_object_mut) {
            // Lists travel as JSON text, in which a tree has sorted the keys.
            data.values_mut().for_each(unfold);
        }
        tree
    };
    #[cfg(feature = "bench-vrl")]
    let vrl = vrl::Mapper::new();
    for line in lines {
        let expected = tree(&reference::body(line, agents, now));
        assert_eq!(tree(&dom::body(line, agents, now)), expected, "{line}");
        #[cfg(feature = "bench-vrl")]
        assert_eq!(moments(tree(&vrl.body(line, agents))), moments(expected.clone()), "{line}");
        for plan in plans {
            let mut made = Vec::new();
            bodies(plan, line, now, |body| made.push(tree(body)));
            assert_eq!(made, std::slice::from_ref(&expected), "{line}");
        }
    }
}

/// Spellings of one moment as one.
#[cfg(feature = "bench-vrl")]
fn moments(mut body: Value) -> Value {
    let moment = body["timestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    if let Some(moment) = moment {
        body["timestamp"] = moment.as_nanosecond().to_string().into();
    }
    body
}

fn unfold(value: &mut Value) {
    if let Some(list) = value.as_str().filter(|text| text.starts_with('[')) {
        *value = serde_json::from_str(list).unwrap_or_default();
    }
}

type Run<'a> = (String, Box<dyn Fn() + 'a>);

/// The best time of each, in nanoseconds; they take turns.
fn best(runs: &[Run<'_>], turns: usize) -> Vec<f64> {
    let mut best = vec![Duration::MAX; runs.len()];
    for _ in 0..turns {
        for ((_, run), best) in runs.iter().zip(&mut best) {
            let start = clock();
            run();
            *best = start.elapsed().min(*best);
        }
    }
    best.into_iter().map(|took| took.as_nanos() as f64).collect()
}

fn main() {
    let (source, text) = mix::records();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let now = usercom_sink::clock::now();
    let preset = plan("mapping = []", Some(Preset::Segment));
    let table = plan(TABLE, None);
    let nothing = plan(NOTHING, None);
    let agents = agents(&preset, &lines, now);
    compare(&[&preset, &table], &lines, &agents, now);
    let all = |line: &dyn Fn(&str)| lines.iter().for_each(|l| line(l));
    let made = |plan: &CompiledMapping, line: &str| {
        bodies(plan, line, now, |body| _ = black_box(body.len()))
    };
    let map = |plan: &CompiledMapping, line: &str| {
        let mapped = plan.map(Input { body: line.as_bytes(), meta: None });
        black_box(mapped.expect("the records are sound"));
    };
    fn run<'a>(name: &str, run: Box<dyn Fn() + 'a>) -> Run<'a> {
        (name.to_owned(), run)
    }
    #[cfg(feature = "bench-vrl")]
    let vrl = vrl::Mapper::new();
    let runs: Vec<Run<'_>> = vec![
        run(SKELETON, Box::new(|| all(&|l| _ = black_box(reference::body(l, &agents, now))))),
        run(PRESET, Box::new(|| all(&|l| made(&preset, l)))),
        run(EQUIVALENT, Box::new(|| all(&|l| made(&table, l)))),
        run(ON_A_TREE, Box::new(|| all(&|l| _ = black_box(dom::body(l, &agents, now))))),
        run(
            "tree and back",
            Box::new(|| {
                all(&|l| {
                    let value: Value = serde_json::from_str(l).expect("the records are sound");
                    black_box(value.to_string());
                })
            }),
        ),
        run(VALIDATE, Box::new(|| all(&|l| _ = black_box(serde_json::from_str::<IgnoredAny>(l))))),
        run("unwanted records", Box::new(|| all(&|l| map(&nothing, l)))),
        run("preset, calls only", Box::new(|| all(&|l| map(&preset, l)))),
        run("table, calls only", Box::new(|| all(&|l| map(&table, l)))),
        #[cfg(feature = "bench-vrl")]
        run(VECTOR, Box::new(|| all(&|l| _ = black_box(vrl.body(l, &agents))))),
    ];
    if let Some(only) = only() {
        let (_, run) = runs.iter().find(|(name, _)| *name == only).expect("a contestant's name");
        (0..TURNS).for_each(|_| run());
        return;
    }
    let mut out = format!(
        "\n{} records, {} bytes, from {source}; best of {TURNS} turns:\n",
        lines.len(),
        text.len()
    );
    let times = best(&runs, TURNS);
    let time = |contestant: &str| {
        let place = runs.iter().position(|(name, _)| name == contestant);
        times[place.expect("a contestant's name")]
    };
    let count = lines.len() as f64;
    for ((name, _), ns) in runs.iter().zip(&times) {
        let (skeleton, validate) = (ns / time(SKELETON), ns / time(VALIDATE));
        let line = format!(
            "{name:>24}: {:>8.0} ns a record, {skeleton:>5.2} of the skeleton, {validate:>5.2} of validating\n",
            ns / count
        );
        out.push_str(&line);
    }
    let others = [
        ("a mapper on a tree", ON_A_TREE),
        #[cfg(feature = "bench-vrl")]
        ("Vector's language", VECTOR),
    ];
    for (words, contestant) in others {
        let (preset, table) =
            (time(contestant) / time(PRESET), time(contestant) / time(EQUIVALENT));
        writeln!(
            out,
            "{words} takes {preset:.1} times the preset's time, {table:.1} times the table's"
        )
        .expect("a string takes all");
    }
    growth_by_rules(&lines, &mut out);
    growth_by_size(&preset, now, &mut out);
    std::io::Write::write_all(&mut std::io::stdout(), out.as_bytes())
        .expect("stdout takes the report");
    // For comparisons of one machine over time.
    let mut criterion = Criterion::default()
        .configure_from_args()
        .without_plots()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    let mut group = criterion.benchmark_group("mapping");
    group.throughput(Throughput::Elements(lines.len() as u64));
    for (name, run) in &runs {
        group.bench_function(name, |bencher| bencher.iter(run));
    }
    group.finish();
}

/// Many rules in the file, of which none or one wants a record.
fn growth_by_rules(lines: &[&str], out: &mut String) {
    let mut runs: Vec<Run<'_>> = Vec::new();
    for rules in [1, 10, 100] {
        for wanted in [false, true] {
            let mut table = String::new();
            for n in 0..rules {
                let last = wanted && n == rules - 1;
                let (kind, when) = if last {
                    ("track", "track".to_owned())
                } else {
                    ("track", format!("kind-{n}"))
                };
                writeln!(
                    table,
                    "[[mapping]]\ncall = \"{kind}\"\nwhen = {{ \".type\" = \"{when}\" }}\n[mapping.fields]\nuser_id = {{ path = [\".userId\", \".anonymousId\"] }}\nevent = {{ path = [\".event\", \".kind{n}.event\"] }}\n\"properties.price\" = \".kind{n}.price\"\n\"properties.sku\" = \".properties.sku\""
                )
                .expect("a string takes all");
            }
            let plan = plan(&table, None);
            let run = move || {
                for line in lines {
                    let mapped = plan.map(Input { body: line.as_bytes(), meta: None });
                    black_box(mapped.expect("the records are sound"));
                }
            };
            let which =
                if wanted { "the last takes every second record" } else { "none takes any" };
            runs.push((format!("{rules} rules, {which}"), Box::new(run)));
        }
    }
    out.push_str("\nrules in the file (calls only):\n");
    for ((name, _), ns) in runs.iter().zip(best(&runs, TURNS / 2)) {
        writeln!(out, "{name:>45}: {:>6.0} ns a record", ns / lines.len() as f64)
            .expect("a string takes all");
    }
}

/// Records of more and more properties.
fn growth_by_size(preset: &CompiledMapping, now: Timestamp, out: &mut String) {
    let records: Vec<String> = [10, 100, 1_000, 10_000]
        .map(|count| {
            let properties: Vec<String> =
                (0..count).map(|n| format!("\"property_{n}\":\"value {n}\"")).collect();
            let properties = properties.join(",");
            format!("{{\"type\":\"track\",\"userId\":\"u\",\"event\":\"e\",\"properties\":{{{properties}}}}}")
        })
        .into();
    let run = |record: &String| -> Run<'_> {
        let record = record.clone();
        let name = format!("{} bytes", record.len());
        let rounds = 2_000_000 / record.len();
        let run = Box::new(move || {
            for _ in 0..rounds {
                bodies(preset, &record, now, |body| _ = black_box(body.len()));
            }
        });
        (name, run)
    };
    let runs: Vec<Run<'_>> = records.iter().map(run).collect();
    out.push_str("\nsize of a record (preset, bodies out):\n");
    for (((name, _), ns), record) in runs.iter().zip(best(&runs, TURNS / 4)).zip(&records) {
        let bytes = (2_000_000 / record.len() * record.len()) as f64;
        writeln!(out, "{name:>24}: {:>6.2} ns a byte", ns / bytes).expect("a string takes all");
    }
}

/// The one contestant that is to run, for profilers: `-- --only "preset segment"`.
fn only() -> Option<String> {
    let mut arguments = std::env::args();
    arguments.find(|argument| argument == "--only")?;
    arguments.next()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn clock() -> Instant {
    Instant::now()
}
