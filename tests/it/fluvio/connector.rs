//! The connector: configs of every version run into a User.com, and bad ones are reported with
//! their position.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use usercom_sink::buffer::Store;
use usercom_sink::config::connector::{
    Connector, Secrets, TopicShape, connector_package_text, load_connector,
};
use usercom_sink::config::fault::ConfigPath;
use usercom_sink::config::sink::UsercomSink;
use usercom_sink::config::source::{
    FluvioPartitions, FluvioStart, FluvioStartPlace, FluvioStartWord, FluvioStrategy,
};
use usercom_sink::config::{FixedEnvironment, Report, SourceText, Style};
use usercom_sink::emulator::Faults;
use usercom_sink::pipeline::{BuiltPipeline, RunOptions, Shutdown};
use usercom_sink::sink::{Destination, SinkFactory};
use usercom_sink::source::ReadMode;
use usercom_sink::telemetry::Metrics;

use super::cluster::Fake;
use crate::support::{EmulatorAccount, KEY, TestDir};

fn load_with(text: &str, secrets: &Secrets, vars: &[(&str, &str)]) -> Result<Connector, Report> {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let environment = FixedEnvironment { vars: vars.collect(), files: BTreeMap::new() };
    let file = SourceText::new("config.yaml", text);
    load_connector(&file, secrets, None, &environment, &|at: &ConfigPath, sink: &UsercomSink| {
        sink.validate(at).err().unwrap_or_default()
    })
}

fn load(text: &str) -> Result<Connector, Report> {
    load_with(text, &Secrets::Environment, &[("USERCOM_KEY", KEY), ("HOST", "127.0.0.1")])
}

#[track_caller]
fn good(text: &str) -> Connector {
    load(text).unwrap_or_else(|report| panic!("{}", report.render(Style::Plain)))
}

/// The oldest format, which says no version: secrets need not be declared.
const FIRST: &str = "\
meta:
  version: 0.1.0
  name: my-crm
  type: usercom-sink
  topic: events
  secrets:
    - name: IGNORED
usercom:
  endpoint: ENDPOINT
  api_key: ${{ secrets.USERCOM_KEY }}
  preset: segment
";

/// Keys with `-`, a consumer, offsets, a table for a secret, and Fluvio's own words around.
const SECOND: &str = "\
apiVersion: 0.1.0
meta:
  version: 0.1.0
  name: my-crm
  type: usercom-sink
  topic: events
  consumer:
    id: crm-reader
    partition: [0, 1]
    max-bytes: 1 MB
    offset:
      start: beginning
      strategy: auto
      flush-period: { secs: 2, nanos: 500000000 }
  secrets:
    - name: USERCOM_KEY
usercom:
  endpoint: ENDPOINT
  api_key: { secret: { name: USERCOM_KEY } }
  preset: segment
  request: { concurrency: 2 }
  max_in_flight: 50
  decoding: { codec: json }
  api: { listen: \"127.0.0.1:0\" }
";

/// A described topic, and a comment of the renderer's.
const THIRD: &str = "\
apiVersion: 0.2.0
${# who reads this is told nothing #}
meta:
  version: 0.1.0
  name: my-crm
  type: usercom-sink
  topic:
    meta:
      name: events
    partition:
      count: 2
      max-size: 1 GiB
      replication: 1
      ignore-rack-assignment: true
    retention:
      time: 2d 12h
      segment-size: 16 MiB
    compression:
      type: Gzip
    deduplication:
      bounds: { count: 100, age: 1m }
      filter: { transform: { uses: dedup, with: { by: key } } }
  consumer:
    partition: all
    offset:
      start: { from-beginning: 0 }
      strategy: manual
  secrets:
    - name: USERCOM_KEY
usercom:
  endpoint: ENDPOINT
  api_key: \"${{ secrets['USERCOM_KEY'] }}\"
  mapping:
    - call: identify
      fields: { user_id: .userId, traits.*: .traits }
";

#[test]
fn every_config_version_is_interpreted_as_declared() {
    // Names, partitions, starts, sizes and secrets of all three formats become settings.
    let first = good(&FIRST.replace("ENDPOINT", "http://127.0.0.1:1/"));
    assert_eq!(first.name, "my-crm");
    assert_eq!(first.source.topic, "events");
    assert_eq!(first.source.consumer.as_deref(), Some("usercom-sink-my-crm"));
    assert_eq!(first.source.offset.start, FluvioStart::Word(FluvioStartWord::End));
    assert_eq!(first.source.offset.strategy, FluvioStrategy::Manual);
    assert_eq!(first.source.partitions.numbers(), None);
    assert_eq!(first.topic, TopicShape::default());
    assert_eq!(first.loaded.pipeline.data_dir, Path::new("./my-crm-data"));

    let second = good(&SECOND.replace("ENDPOINT", "http://${HOST}:1/"));
    assert_eq!(second.source.consumer.as_deref(), Some("crm-reader"));
    assert_eq!(second.source.partitions, FluvioPartitions::List(vec![0, 1]));
    assert_eq!(second.source.max_bytes, Some(1_000_000));
    assert_eq!(second.source.offset.strategy, FluvioStrategy::Auto);
    assert_eq!(second.source.commit_interval_ms, 2_500);
    assert_eq!(second.source.max_in_flight, 50);

    let third = good(&THIRD.replace("ENDPOINT", "http://127.0.0.1:1/"));
    let place = FluvioStartPlace { from_beginning: Some(0), ..FluvioStartPlace::default() };
    assert_eq!(third.source.offset.start, FluvioStart::Place(place));
    assert_eq!((third.topic.partitions, third.topic.replication), (Some(2), Some(1)));
    assert!(third.topic.ignore_rack);
    assert_eq!(third.topic.retention_secs, Some(216_000));
    assert_eq!(third.topic.segment_bytes, Some(16 << 20));
    assert_eq!(third.topic.max_partition_bytes, Some(1 << 30));
    assert_eq!(third.topic.compression, Some("gzip"));
    let deduplication = third.topic.deduplication.as_ref().unwrap();
    assert_eq!((deduplication.count, deduplication.age_secs), (100, Some(60)));
    let text = format!(
        "{}transforms:\n  - uses: jolt\n    with:\n      spec: [{{ shift: 1 }}]\n      token: {}\n",
        FIRST.replace("ENDPOINT", "http://127.0.0.1:1/"),
        "${{ secrets.USERCOM_KEY }}"
    );
    let passing = good(&text);
    let jolt = &passing.source.transforms[0];
    assert_eq!((jolt.uses.as_str(), jolt.with["spec"].as_str()), ("jolt", "[{\"shift\":1}]"));
    assert_eq!(jolt.with["token"], KEY);
    for connector in [first, second, third, passing] {
        assert!(!format!("{connector:?}").contains(KEY), "the key is in no Debug output");
    }
}

#[tokio::test]
async fn every_config_version_delivers() {
    // Each format's connector reads the topic, delivers into User.com, and keeps its offset; a
    // topic that is missing is made as the config says.
    for (version, text) in [FIRST, SECOND, THIRD].into_iter().enumerate() {
        let account = EmulatorAccount::open(Faults::default()).await;
        let mut connector = good(&text.replace("ENDPOINT", &account.endpoint()));
        // The first format begins at the end, as Fluvio has it; here what is there is to be read.
        connector.source.offset.start = FluvioStart::Word(FluvioStartWord::Beginning);
        let fake = if version == 2 { Fake::default() } else { Fake::topic(2) };
        let produce = |from: usize| {
            for n in from..from + 4 {
                let user = format!("u{n}");
                let record = json!({
                    "type": "identify", "userId": user, "messageId": format!("m{n}"),
                    "traits": { "first_name": "Ada" }
                });
                fake.produce(u32::from(n % 2 == 1), record.to_string());
            }
        };
        let stop = Shutdown::default();
        let options = |mode| RunOptions {
            mode,
            store: Store::in_memory().unwrap(),
            metrics: Metrics::default(),
            stop: stop.clone(),
            destination: Destination::Account,
        };
        if version < 2 {
            produce(0);
        }
        let cluster = || Arc::new(fake.clone());
        let built = BuiltPipeline::build_connector(&connector, options(ReadMode::Once), cluster());
        let summary = built.await.unwrap().run().await.unwrap();
        assert_eq!(summary.left, 0);
        if version == 2 {
            let made = fake.state().made.clone().unwrap();
            assert_eq!((made.partitions, made.retention_secs), (2, Some(216_000)));
            produce(0);
            let again =
                BuiltPipeline::build_connector(&connector, options(ReadMode::Once), cluster());
            again.await.unwrap().run().await.unwrap();
        }
        for n in 0..4 {
            let user = account.get(&format!("users-by-id/u{n}/?user_id=u{n}")).await;
            let found = user["first_name"].as_str().or(user["results"][0]["first_name"].as_str());
            let all: Vec<Value> = account.all("users/").await;
            assert!(found == Some("Ada") || all.len() == 4, "{version}: {user} {all:?}");
        }
        // Everything was settled, or the cluster would not have its offsets.
        assert_eq!(fake.state().kept, BTreeMap::from([(0, 1), (1, 1)]), "version {version}");
        account.close().await;
    }
}

/// `(what is changed, its change, code, line, column, a part of the message)`
type Bad = (&'static str, &'static str, &'static str, usize, usize, &'static str);

#[test]
fn config_fault_has_a_position() {
    // Every fault has a code, its line and column, and help; the section's faults are those of a
    // pipeline's sink, under the names the config has for them.
    let cases: &[Bad] = &[
        ("0.2.0", "0.3.0", "E0104", 1, 13, "unknown word `0.3.0` for `apiVersion`"),
        ("usercom-sink", "http-source", "E0405", 6, 9, "is the type of a source"),
        ("my-crm", "my/crm", "E0110", 5, 9, "cannot be a connector's name"),
        ("name: events", "name: Events_1", "E0361", 9, 13, "cannot be a topic"),
        ("count: 2", "count: none", "E0103", 11, 14, "expected a whole number, found a string"),
        ("2d 12h", "2 moons", "E0410", 16, 13, "is not a duration"),
        ("1 GiB", "1 GiX", "E0410", 12, 17, "is not a size"),
        ("type: Gzip", "type: gzip", "E0104", 19, 13, "unknown word `gzip`"),
        ("partition: all", "partition: some", "E0104", 24, 16, "unknown word `some`"),
        ("strategy: manual", "strategie: manual", "E0101", 27, 7, "unknown key `strategie`"),
        (
            "    partition: all",
            "    partitions: all",
            "E0101",
            24,
            5,
            "unknown key `partitions` in `meta.consumer`",
        ),
        (
            "- name: USERCOM_KEY",
            "- name: OTHER",
            "E0403",
            32,
            13,
            "secret USERCOM_KEY is not declared",
        ),
        (
            "- name: USERCOM_KEY",
            "- name: USERCOM_KEY\n    - name: 1A",
            "E0404",
            30,
            13,
            "cannot be a secret's name",
        ),
        ("secrets['USERCOM_KEY']", "env.KEY", "E0401", 32, 13, "`env.KEY` is not defined"),
        ("${# who reads this is told nothing #}", "${% if x %}", "E0401", 2, 1, "blocks"),
        ("usercom:\n", "custom:\n", "E0407", 30, 1, "not under `custom`"),
        (
            "  mapping:",
            "  inputs: [a]\n  mapping:",
            "E0407",
            33,
            3,
            "is given by the connector itself",
        ),
        (
            "  mapping:",
            "  presett: segment\n  mapping:",
            "E0101",
            33,
            3,
            "unknown key `presett` in `usercom`",
        ),
        (
            "  mapping:",
            "  request: { concurrency: 0 }\n  mapping:",
            "E0107",
            33,
            27,
            "`usercom.request.concurrency`",
        ),
        (
            "  mapping:",
            "  decoding: { codec: jsn }\n  mapping:",
            "E0104",
            33,
            22,
            "`usercom.decoding.codec`",
        ),
        ("user_id: .userId", "user_id: userId", "E0202", 35, 26, "userId"),
        ("  endpoint: ENDPOINT\n", "", "E0306", 30, 1, "`usercom` has neither"),
        (
            "usercom:\n",
            "transforms: [{ uses: jolt, lookback: { last: 1 } }]\nusercom:\n",
            "E0408",
            30,
            38,
            "`lookback`",
        ),
        ("apiVersion: 0.2.0", "apiVersion: 0.1.0", "E0409", 7, 3, "described only from"),
        ("    meta:\n      name: events\n", "", "E0102", 7, 3, "missing key `meta`"),
        ("meta:\n  version", "metta:\n  version", "E0101", 3, 1, "unknown key `metta`"),
        ("  name: my-crm", "  name: [", "E0002", 6, 3, "invalid YAML"),
    ];
    let mut wrong = String::new();
    for (what, change, code, line, column, message) in cases {
        assert!(THIRD.contains(what), "{what}");
        let text = THIRD.replacen(what, change, 1).replace("ENDPOINT", "http://127.0.0.1:1/");
        let Err(report) = load(&text) else {
            panic!("taken: {change}");
        };
        let told: Vec<_> =
            report.diagnostics().iter().map(|d| (d.code, d.line, d.column, &*d.message)).collect();
        let found = told
            .iter()
            .any(|(c, l, col, m)| c == code && (l, col) == (line, column) && m.contains(message));
        let shown = report.render(Style::Plain);
        assert!(!shown.contains(KEY));
        if !found {
            wrong.push_str(&format!("{change}: {code} {line}:{column} {message}\n{shown}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn several_faults_are_reported_at_once() {
    // One look shows everything: of Fluvio's part and of ours.
    let text = "\
apiVersion: 0.1.0
meta:
  name: crm
  type: usercom-sink
  version: 0.1.0
  topic: events
  consumr: {}
usercom:
  app: acme
  api_key: ${{ secrets.KEY }}
  rquest: {}
  mapping:
    - call: identfy
      fields: {}
";
    let report = load(text).unwrap_err();
    let codes: Vec<_> = report.diagnostics().iter().map(|d| (d.code, d.line)).collect();
    assert_eq!(codes, [("E0101", 7), ("E0403", 10), ("E0101", 11), ("E0104", 13)]);
    assert!(report.render(Style::Plain).contains("did you mean `consumer`?"));
}

#[test]
fn secret_in_connector_config_is_not_shown() {
    // Where a secret makes a fault, the fault shows the expression and not the value, in text and
    // in JSON; a secret that is missing is named.
    const SECRET: &str = "hunter2-and-more";
    let vars = [("PLACE", SECRET), ("WORD", SECRET), ("KEY", SECRET)];
    let text = "\
meta:
  name: crm
  type: usercom-sink
  version: 0.1.0
  topic: ${{ secrets.WORD }}
usercom:
  endpoint: ${{ secrets.PLACE }}
  api_key: ${{ secrets.KEY }}
  preset: ${{ secrets.WORD }}
  mapping:
    - call: identify
      fields: { user_id: \"${{ secrets.WORD }}\" }
";
    let report = load_with(text, &Secrets::Environment, &vars).unwrap_err();
    assert!(report.errors() >= 3, "{}", report.render(Style::Plain));
    for shown in [report.render(Style::Plain), report.to_json().to_string()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert!(report.render(Style::Plain).contains("${{ secrets.PLACE }}"));
    let report = load_with(text, &Secrets::Environment, &vars[..2]).unwrap_err();
    let in_meta = load_with(&text.replace("WORD", "TOPIC"), &Secrets::Environment, &vars);
    let in_meta = in_meta.unwrap_err();
    let codes: Vec<_> = in_meta.diagnostics().iter().map(|d| (d.code, d.line)).collect();
    assert!(codes.starts_with(&[("E0402", 5)]) && codes.iter().all(|(code, _)| *code != "E0012"));
    let missing = report.diagnostics().iter().find(|d| d.code == "E0402").unwrap();
    assert_eq!((missing.line, missing.column), (8, 12));
    assert_eq!(missing.message, "secret KEY is not set");
}

#[test]
fn secrets_file_wins_over_environment() {
    // With a file, only its lines count.
    let place = TestDir::new();
    let path = place.write("secrets.txt", "# mine\nUSERCOM_KEY=from=file\n");
    let secrets = Secrets::read(&path).unwrap();
    let text = FIRST.replace("ENDPOINT", "http://127.0.0.1:1/");
    let connector = load_with(&text, &secrets, &[("USERCOM_KEY", KEY)]).unwrap();
    let usercom_sink::config::SinkConfig::Usercom(sink) =
        &connector.loaded.pipeline.sinks["usercom"];
    assert_eq!(secrecy::ExposeSecret::expose_secret(&sink.api_key), "from=file");
    // As Fluvio reads the same file: blanks are no part of a value, the first line counts.
    let text = "no line\n USERCOM_KEY =  spaced \t\nUSERCOM_KEY=second\n";
    let secrets = Secrets::read(&place.write("spaced.txt", text)).unwrap();
    let config = FIRST.replace("ENDPOINT", "http://127.0.0.1:1/");
    let connector = load_with(&config, &secrets, &[]).unwrap();
    let usercom_sink::config::SinkConfig::Usercom(sink) =
        &connector.loaded.pipeline.sinks["usercom"];
    assert_eq!(secrecy::ExposeSecret::expose_secret(&sink.api_key), "spaced");
}

#[test]
fn config_is_accepted_exactly_as_by_fluvio_parser() {
    // A table of what the parser of Fluvio's tools (fluvio-connector-package, November 2025) takes
    // and refuses of the common part; it was asked about each of these.
    let described = "{ meta: { name: events } }";
    let topic = |more: &str| format!("{{ meta: {{ name: events }}, {more} }}");
    let config = |version: &str, topic: &str, more: &str| {
        let version = match version {
            "" => String::new(),
            version => format!("apiVersion: {version}\n"),
        };
        format!(
            "{version}meta:\n  version: 0.1.0\n  name: crm\n  type: usercom-sink\n  \
             topic: {topic}\n{more}usercom:\n  endpoint: http://127.0.0.1:1/\n  \
             api_key: abcdefgh\n  preset: segment\n"
        )
    };
    let consumer = |what: &str| format!("  consumer: {{ {what} }}\n");
    let cases: Vec<(String, bool)> = vec![
        (config("", "events", ""), true),
        (config("0.0.0", "events", ""), true),
        (config("0.1.0", "events", ""), true),
        (config("0.2.0", described, ""), true),
        (config("0.2.0", "events", ""), false),
        (config("0.1.0", described, ""), false),
        (config("", described, ""), false),
        (config("0.3.0", "events", ""), false),
        (config("0.2.0", &topic("compression: { type: Gzip }"), ""), true),
        (config("0.2.0", &topic("compression: { type: Zstd }"), ""), true),
        (config("0.2.0", &topic("compression: { type: Lz4 }"), ""), true),
        (config("0.2.0", &topic("compression: { type: Snappy }"), ""), true),
        (config("0.2.0", &topic("compression: { type: None }"), ""), true),
        (config("0.2.0", &topic("compression: { type: Any }"), ""), true),
        (config("0.2.0", &topic("compression: {}"), ""), true),
        (config("0.2.0", &topic("compression: { type: gzip }"), ""), false),
        (config("0.2.0", &topic("compression: { type: GZIP }"), ""), false),
        (config("0.2.0", &topic("retention: { time: 2d 12h }"), ""), true),
        (config("0.2.0", &topic("retention: { time: 2 moons }"), ""), false),
        (config("0.2.0", &topic("partition: { count: 2, max-size: 1 GiB }"), ""), true),
        (config("0.2.0", &topic("partition: { count: -1 }"), ""), false),
        (config("0.1.0", "events", &consumer("partition: all")), true),
        (config("0.1.0", "events", &consumer("partition: 3")), true),
        (config("0.1.0", "events", &consumer("partition: [0, 1]")), true),
        (config("0.1.0", "events", &consumer("partition: some")), false),
        (config("0.1.0", "events", &consumer("max-bytes: 1 MB")), true),
        (config("0.1.0", "events", &consumer("max_bytes: 1 MB")), true),
        (config("0.1.0", "events", &consumer("max-bytes: 1 XB")), false),
        (config("0.1.0", "events", &consumer("offset: { strategy: auto }")), true),
        (config("0.1.0", "events", &consumer("offset: { start: end }")), false),
        (config("0.1.0", "events", &consumer("offset: { strategy: Auto }")), false),
        (
            config(
                "0.1.0",
                "events",
                &consumer("offset: { strategy: none, start: { absolute: 5 } }"),
            ),
            true,
        ),
        (
            config(
                "0.1.0",
                "events",
                &consumer("offset: { strategy: none, start: { from-end: 5 } }"),
            ),
            true,
        ),
        (config("0.1.0", "events", "  secrets: [{ name: A_1 }]\n"), true),
        (config("0.1.0", "events", "  secrets: [{ name: 1A }]\n"), false),
        (config("0.1.0", "events", "transforms: [{ uses: some, with: { a: b } }]\n"), true),
        (config("0.1.0", "events", "transforms: [{ with: { a: b } }]\n"), false),
    ];
    // To ask the parser again: the texts, one file each.
    if let Ok(folder) = std::env::var("USERCOM_TEST_CONFIGS") {
        for (number, (text, taken)) in cases.iter().enumerate() {
            let path = Path::new(&folder).join(format!("{number:02}-{taken}.yaml"));
            std::fs::write(path, text).unwrap();
        }
    }
    for (text, taken) in &cases {
        let told = load(text).map(drop).map_err(|report| report.render(Style::Plain));
        assert_eq!(told.is_ok(), *taken, "{text}{told:?}");
    }
}

#[test]
fn committed_package_is_current_and_parses() {
    // What Fluvio's tools read is what this program would write, and asks for what is needed.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed =
        std::fs::read_to_string(root.join("connector/Connector.toml")).unwrap_or_default();
    let text = connector_package_text();
    assert!(
        committed == text,
        "Connector.toml is out of date: run \
         `cargo run --features fluvio -- schema --connector > connector/Connector.toml`"
    );
    let package: toml::Table = text.parse().unwrap();
    assert_eq!(package["package"]["name"].as_str(), Some("usercom-sink"));
    assert_eq!(package["direction"]["dest"].as_bool(), Some(true));
    assert_eq!(package["deployment"]["binary"].as_str(), Some("usercom-connector"));
    // The tools take the first target of the package the file stands next to: there is only one.
    let manifest = std::fs::read_to_string(root.join("connector/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    assert_eq!(manifest["package"]["name"].as_str(), Some("usercom-connector"));
    assert!(!manifest.contains_key("lib") && !root.join("connector/src/lib.rs").exists());
    let custom = &package["custom"];
    assert_eq!(custom["name"].as_str(), Some("usercom"));
    assert_eq!(custom["required"].as_array().unwrap(), &["api_key".into()]);
    let properties = custom["properties"].as_table().unwrap();
    for (key, kind) in [("api_key", "string"), ("mapping", "array"), ("request", "object")] {
        assert_eq!(properties[key]["type"].as_str(), Some(kind), "{key}");
    }
    assert!(properties.contains_key("decoding") && !properties.contains_key("inputs"));
    assert!(properties.values().all(|property| property["description"].is_str()));
    assert!(text.contains("[custom.properties.request.properties.timeout_secs]"));
}

#[test]
fn shown_example_config_is_valid() {
    // The example, and the config in `docs/fluvio.md`, have no faults and no warnings.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/fluvio.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut texts: Vec<String> =
        blocks.filter(|block| block.contains("usercom:\n")).map(str::to_owned).collect();
    assert_eq!(texts.len(), 1);
    texts.push(std::fs::read_to_string(root.join("examples/fluvio/connector.yaml")).unwrap());
    for text in texts {
        let vars = [("USERCOM_API_KEY", KEY)];
        let connector = load_with(&text, &Secrets::Environment, &vars)
            .unwrap_or_else(|report| panic!("{}", report.render(Style::Plain)));
        assert!(connector.loaded.warnings.is_empty(), "{:?}", connector.loaded.warnings);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_accepted_or_rejected(
        cuts in proptest::collection::vec((0_usize..900, 0_usize..4, "[ -~\n]{0,4}"), 0..6)
    ) {
        // However a config is broken, it is loaded or refused, and no secret is shown.
        let mut text = THIRD.replace("ENDPOINT", "http://127.0.0.1:1/");
        for (at, length, put) in cuts {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.replace_range(at..end, &put);
        }
        if let Err(report) = load(&text) {
            proptest::prop_assert!(!report.is_empty());
            proptest::prop_assert!(!report.render(Style::Plain).contains(KEY));
        }
    }
}
