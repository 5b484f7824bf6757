//! Wrong files, each with the fault it must be refused for and the line it must be shown at.

use usercom_sink::config::pipeline_schema;

use super::{GOOD, json, load_text};

/// A snippet, its fault's code, and the line of the snippet the fault is shown at.
type Row = (&'static str, &'static str, usize);

/// Refused by the schema too. `GOOD` stands before each, so that the snippets are short.
const BY_SCHEMA: &[Row] = &[
    // unknown keys
    ("color = 1", "E0101", 1),
    ("[sinks.crm.request]\nrate_limit_nums = 10", "E0101", 2),
    ("[sinks.crm.buffer]\nmax_evnts = 10", "E0101", 2),
    ("[sinks.crm.users]\ncreate = true", "E0101", 2),
    ("[sinks.crm.delivery]\ndedupe = 3", "E0101", 2),
    ("[sinks.crm.healthcheck]\nurl = 'x'", "E0101", 2),
    ("[sources.b]\ntype = 'stdin'\ninclude = ['x']", "E0101", 3),
    ("[sources.b]\ntype = 'stdin'\n[sources.b.decoding]\ncodek = 'json'", "E0101", 4),
    (
        "[sources.b]\ntype = 'kafka'\nbootstrap_servers = 'k'\ngroup_id = 'g'\ntopics = []",
        "E0108",
        5,
    ),
    ("[sources.b]\ntype = 'kafka'\nbootstrap_servers = 'k'\ntopics = ['t']", "E0102", 1),
    ("[api]\nlisten = '127.0.0.1:1'\nport = 1", "E0101", 3),
    ("[[sinks.crm.mapping]]\ncall = 'track'\nfields = {}\nname2 = 'x'", "E0101", 4),
    ("[[sinks.crm.mapping]]\ncall = 'track'\nfields = { event = { pth = '.x' } }", "E0101", 3),
    (
        "[[sinks.crm.mapping]]\ncall = 'track'\nfields = {}\nwhen = { '.a' = { equal = 1 } }",
        "E0101",
        4,
    ),
    (
        "[[tests]]\nname = 't'\nsink = 'crm'\nrecord = 1\ncalls = [{ type = 'track', userid = 'x' }]",
        "E0101",
        5,
    ),
    // keys from elsewhere
    ("[sinks.crm.request]\nretry_max_duration = 10", "E0109", 2),
    ("[sinks.crm.batch]\nmax_events = 10", "E0109", 1),
    ("[[sinks.crm.mapping]]\ncall = 'track'\nfields = {}\nif = {}", "E0109", 4),
    ("[transforms.x]\ntype = 'remap'", "E0109", 1),
    // missing keys
    ("[sources.b]\ntype = 'file'", "E0102", 1),
    ("[sources.b]\ninclude = ['x']", "E0102", 1),
    ("[sinks.b]\ntype = 'usercom'\napp = 'a'\napi_key = 'k'\npreset = 'segment'", "E0102", 1),
    ("[sinks.b]\ntype = 'usercom'\napp = 'a'\ninputs = ['app']\npreset = 'segment'", "E0102", 1),
    ("[sinks.b]\napp = 'a'\ninputs = ['app']\napi_key = 'k'\npreset = 'segment'", "E0102", 1),
    ("[[sinks.crm.mapping]]\nfields = {}", "E0102", 1),
    ("[[sinks.crm.mapping]]\ncall = 'track'", "E0102", 1),
    ("[[tests]]\nname = 't'\nsink = 'crm'\noutcome = 'unmatched'", "E0102", 1),
    ("[sources.b]\ntype = 'http'\nauth = { user = 'u' }", "E0102", 3),
    ("[sources.b]\ntype = 'http'\nauth = { strategy = 'digest' }", "E0104", 3),
    ("[sources.b]\ntype = 'http'\nmax_body_bytes = 0", "E0107", 3),
    // wrong types
    ("data_dir = 1", "E0103", 1),
    ("api = 'x'", "E0103", 1),
    ("tests = 3", "E0103", 1),
    ("[sinks.crm.request]\nrate_limit_num = '10'", "E0103", 2),
    ("[sinks.crm.request]\ntimeout_secs = 1.5", "E0103", 2),
    ("[sinks.crm.request]\nconcurrency = true", "E0103", 2),
    ("[sinks.crm.users]\ncreate_missing = 'yes'", "E0103", 2),
    ("[sources.b]\ntype = 'file'\ninclude = 'x'", "E0103", 3),
    ("[sources.b]\ntype = 'file'\ninclude = [1]", "E0103", 3),
    ("[sources.b]\ntype = 3", "E0103", 2),
    ("[[sinks.crm.mapping]]\ncall = 'track'\nfields = { event = 3 }", "E0103", 3),
    ("[[sinks.crm.mapping]]\ncall = 'track'\nfields = { event = { path = 3 } }", "E0103", 3),
    ("[[sinks.crm.mapping]]\ncall = 'track'\nfields = {}\nwhen = { any = ['x'] }", "E0103", 4),
    ("[[sinks.crm.mapping]]\ncall = 'track'\nfields = []", "E0103", 3),
    // unknown words
    ("[sinks.crm.request]\nconcurrency = 'adaptiv'", "E0104", 2),
    ("[sinks.crm.buffer]\ntype = 'dsk'", "E0104", 2),
    ("[sinks.crm.buffer]\nwhen_full = 'drop'", "E0104", 2),
    ("[sinks.crm.users]\nunknown_attributes = 'ignore'", "E0104", 2),
    ("[sources.b]\ntype = 'stdin'\ndecoding.codec = 'xml'", "E0104", 3),
    ("[[sinks.crm.mapping]]\ncall = 'screen'\nfields = {}", "E0104", 2),
    (
        "[[sinks.crm.mapping]]\ncall = 'track'\nfields = { event = { path = '.x', as = 'int' } }",
        "E0104",
        3,
    ),
    (
        "[[sinks.crm.mapping]]\ncall = 'track'\nfields = { event = { path = '.x', then = ['trim', 'upper'] } }",
        "E0104",
        3,
    ),
    ("[[tests]]\nname = 't'\nsink = 'crm'\nrecord = 1\noutcome = 'lost'", "E0104", 5),
    // types
    ("[sources.b]\ntype = 'fil'\ninclude = ['x']", "E0105", 2),
    ("[sinks.b]\ntype = 'hubspot'", "E0105", 2),
    ("[sources.b]\ntype = 'fluvio'\ntopics = 'x'", "E0101", 3),
    ("[sources.b]\ntype = 'fluvio'", "E0102", 1),
    ("[sources.b]\ntype = 'fluvio'\ntopic = 'x'\noffset.start = 'middle'", "E0104", 4),
    ("[sources.b]\ntype = 'fluvio'\ntopic = 'x'\npartitions = 'some'", "E0104", 4),
    ("[sources.b]\ntype = 'fluvio'\ntopic = 'x'\nmax_in_flight = 0", "E0107", 4),
    // ranges and lengths
    ("[sinks.crm.request]\nrate_limit_num = 0", "E0107", 2),
    ("[sinks.crm.request]\nrate_limit_num = 4294967296", "E0107", 2),
    ("[sinks.crm.request]\nconcurrency = 2000", "E0107", 2),
    ("[sinks.crm.request]\nretry_attempts = -1", "E0107", 2),
    ("[sinks.crm.users]\ncache_size = 0", "E0107", 2),
    ("[sources.b]\ntype = 'file'\ninclude = []", "E0108", 3),
    (
        "[[sinks.crm.mapping]]\ncall = 'track'\nfields = { event = { path = '.x', replace = [['a']] } }",
        "E0108",
        3,
    ),
    ("[sources.'../b']\ntype = 'stdin'", "E0110", 1),
];

/// What only the loader can refuse: the schema does not know what names stand for.
const BY_LOADER: &[Row] = &[
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['ap']\napp = 'a'\napi_key = 'k'\npreset = 'segment'",
        "E0301",
        3,
    ),
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['crm']\napp = 'a'\napi_key = 'k'\npreset = 'segment'",
        "E0302",
        3,
    ),
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['app', 'app']\napp = 'a'\napi_key = 'k'\npreset = 'segment'",
        "E0303",
        3,
    ),
    (
        "[sinks.app]\ntype = 'usercom'\ninputs = ['app']\napp = 'a'\napi_key = 'k'\npreset = 'segment'",
        "E0305",
        1,
    ),
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['app']\napi_key = 'k'\npreset = 'segment'",
        "E0306",
        1,
    ),
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['app']\napp = 'a'\nendpoint = 'https://x.y/'\napi_key = 'k'\npreset = 'segment'",
        "E0307",
        5,
    ),
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['app']\nendpoint = 'acme.user.com'\napi_key = 'k'\npreset = 'segment'",
        "E0308",
        4,
    ),
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['app']\nendpoint = 'ftp://acme.user.com'\napi_key = 'k'\npreset = 'segment'",
        "E0308",
        4,
    ),
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['app']\nendpoint = 'https://u:p@acme.user.com/'\napi_key = 'k'\npreset = 'segment'",
        "E0308",
        4,
    ),
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['app']\nendpoint = 'https://acme.user.com/?a=1'\napi_key = 'k'\npreset = 'segment'",
        "E0308",
        4,
    ),
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['app']\napp = 'acme.user.com'\napi_key = 'k'\npreset = 'segment'",
        "E0309",
        4,
    ),
    ("[sources.b]\ntype = 'file'\ninclude = ['ok', 'a/**b']", "E0310", 3),
    (
        "[sources.b]\ntype = 'stdin'\ndecoding.codec = 'regex'\ndecoding.pattern = '(?P<a>'",
        "E0311",
        4,
    ),
    ("[sources.b]\ntype = 'stdin'\ndecoding.codec = 'regex'\ndecoding.pattern = '(a)'", "E0311", 4),
    ("[sources.b]\ntype = 'stdin'\ndecoding.codec = 'regex'", "E0312", 3),
    ("[sources.b]\ntype = 'stdin'\ndecoding.codec = 'csv'\ndecoding.delimiter = ';;'", "E0313", 4),
    ("[api]\nlisten = 'localhost'", "E0314", 2),
    ("[sinks.b]\ntype = 'usercom'\ninputs = ['app']\napp = 'a'\napi_key = 'k'", "E0315", 1),
    ("[[tests]]\nname = 't'\nsink = 'cmr'\nrecord = 1\noutcome = 'unmatched'", "E0316", 3),
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['app']\napp = 'a'\napi_key = ''\npreset = 'segment'",
        "E0317",
        5,
    ),
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['app']\napp = 'a'\napi_key = 'two words'\npreset = 'segment'",
        "E0317",
        5,
    ),
    ("[[tests]]\nname = 't'\nsink = 'crm'\nrecord = 1", "E0318", 1),
    (
        "[[tests]]\nname = 't'\nsink = 'crm'\nrecord = 1\noutcome = 'unmatched'\ncalls = [{ type = 'page' }]",
        "E0319",
        5,
    ),
    (
        "[[tests]]\nname = 't'\nsink = 'crm'\nrecord = 1\ncalls = [{ type = 'page', timestamp = 'today' }]",
        "E0320",
        5,
    ),
    ("[sources.b]\ntype = 'stdin'\n[sources.c]\ntype = 'stdin'", "E0321", 3),
    (
        "[sources.b]\ntype = 'file'\ninclude = ['x']\ndecoding.codec = 'csv'\ndecoding.columns = ['a', 'a']",
        "E0322",
        5,
    ),
    ("[sources.b]\ntype = 'http'\naddress = 'localhost:8080'", "E0330", 3),
    ("[sources.b]\ntype = 'http'\naddress = '127.0.0.1'", "E0330", 3),
    ("[sources.b]\ntype = 'http'\npath = 'v1/records'", "E0331", 3),
    ("[sources.b]\ntype = 'http'\npath = '/v1/{records}?a=b'", "E0331", 3),
    ("[sources.b]\ntype = 'http'\n[sources.b.tls]\nenabled = true\ncrt_file = 'a.pem'", "E0332", 3),
    (
        "[sources.b]\ntype = 'http'\n[sources.b.tls]\nenabled = true\ncrt_file = 'a.pem'\nkey_file = 'b.pem'\nverify_certificate = true",
        "E0332",
        3,
    ),
    ("[sources.b]\ntype = 'http'\npath = '/v1/batch'", "E0333", 3),
    ("[sources.b]\ntype = 'http'\npath = '/t/'", "E0333", 3),
    ("[sources.b]\ntype = 'http'\npath = '/health'", "E0333", 3),
    ("[sources.b]\ntype = 'http'\nauth = { strategy = 'bearer' }", "E0334", 3),
    ("[sources.b]\ntype = 'http'\nauth = { strategy = 'bearer', token = '' }", "E0334", 3),
    ("[sources.b]\ntype = 'http'\nauth = { strategy = 'basic', user = 'u' }", "E0334", 3),
    (
        "[sources.b]\ntype = 'http'\n[sources.b.auth]\nstrategy = 'basic'\nuser = 'u'\npassword = 'p'\ntoken = 't'",
        "E0334",
        7,
    ),
    ("[sources.b]\ntype = 'http'\nwrite_key = ''", "E0335", 3),
    ("[sources.b]\ntype = 'http'\nheaders = ['x-topic', 'Cookie']", "E0337", 3),
    ("[sources.b]\ntype = 'http'\nheaders = ['x topic']", "E0337", 3),
    ("[sources.b]\ntype = 'http'\n[sources.c]\ntype = 'http'", "E0336", 3),
    ("[sources.b]\ntype = 'http'\ndecoding.codec = 'regex'", "E0312", 3),
    ("[sources.b]\ntype = 'file'\ninclude = ['${NOPE}']", "E0010", 3),
];

/// What is loaded, with a warning.
const WARNED: &[Row] = &[
    ("[sources.b]\ntype = 'file'\ninclude = ['x']", "W0301", 1),
    ("[sinks.crm.buffer]\nmax_size = 10", "W0302", 2),
    (
        "[sinks.b]\ntype = 'usercom'\ninputs = ['app']\nendpoint = 'http://acme.user.com/'\napi_key = 'k'\npreset = 'segment'",
        "W0303",
        4,
    ),
    (
        "[sinks.crm.buffer]\nwhen_full = 'drop_newest'\n[sinks.crm.request]\nrate_limit_num = 1",
        "W0304",
        2,
    ),
];

/// A Kafka source, to be continued.
#[cfg(feature = "kafka")]
const KAFKA: &str =
    "[sources.b]\ntype = 'kafka'\nbootstrap_servers = 'k:1'\ngroup_id = 'g'\ntopics = ['t']\n";

/// What is refused after `KAFKA`; lines count from its first.
#[cfg(feature = "kafka")]
const KAFKA_BY_LOADER: &[Row] = &[
    ("librdkafka_options = { 'enable.auto.commit' = 'true' }", "E0350", 6),
    ("librdkafka_options = { 'sasl.password' = 'x', 'group.id' = 'h' }", "E0350", 6),
    ("dead_letter_topic = 't'", "E0353", 5),
    ("dead_letter_topic = 'a b'", "E0353", 6),
    ("drain_timeout_ms = 300000", "E0354", 6),
    (
        "drain_timeout_ms = 9000\nlibrdkafka_options = { 'max.poll.interval.ms' = '9000' }\nsession_timeout_ms = 100",
        "E0354",
        6,
    ),
    ("session_timeout_ms = 300001", "E0354", 6),
    ("decoding.codec = 'csv'", "E0355", 6),
    ("decoding.pattern = 'x'\ndecoding.codec = 'regex'", "E0311", 6),
];

/// The same with a whole source, for the keys that `KAFKA` has.
#[cfg(feature = "kafka")]
const KAFKA_WHOLE: &[Row] = &[
    (
        "[sources.b]\ntype = 'kafka'\nbootstrap_servers = 'k:1,'\ngroup_id = 'g'\ntopics = ['t']",
        "E0351",
        3,
    ),
    (
        "[sources.b]\ntype = 'kafka'\nbootstrap_servers = 'k:port'\ngroup_id = 'g'\ntopics = ['t']",
        "E0351",
        3,
    ),
    (
        "[sources.b]\ntype = 'kafka'\nbootstrap_servers = 'k'\ngroup_id = ''\ntopics = ['t']",
        "E0352",
        4,
    ),
    (
        "[sources.b]\ntype = 'kafka'\nbootstrap_servers = '[::1]:9092'\ngroup_id = 'g'\ntopics = ['t', 't']",
        "E0353",
        5,
    ),
    (
        "[sources.b]\ntype = 'kafka'\nbootstrap_servers = 'k'\ngroup_id = 'g'\ntopics = ['^(']",
        "E0353",
        5,
    ),
    (
        "[sources.b]\ntype = 'kafka'\nbootstrap_servers = 'k'\ngroup_id = 'g'\ntopics = ['^a']\ndead_letter_topic = 'abc'",
        "E0353",
        5,
    ),
];

#[cfg(feature = "kafka")]
#[test]
fn invalid_kafka_source_is_rejected() {
    // Settings the source must own, addresses, topics and limits are refused at their line; a
    // disk buffer with Kafka is loaded with a warning.
    let sunk = "[sinks.k]\ntype = 'usercom'\ninputs = ['b']\napp = 'a'\napi_key = 'k'\npreset = 'segment'\n";
    let behind = |rest: &str| format!("{KAFKA}{rest}\n{sunk}buffer.type = 'memory'");
    let texts: Vec<_> = KAFKA_BY_LOADER.iter().map(|(rest, ..)| behind(rest)).collect();
    let rows: Vec<_> = texts
        .iter()
        .zip(KAFKA_BY_LOADER)
        .map(|(text, (_, code, line))| (text.as_str(), *code, *line))
        .collect();
    assert_refused(&rows);
    assert_refused(KAFKA_WHOLE);
    let (text, offset) = file(&format!("{KAFKA}{sunk}buffer.type = 'disk'"));
    let loaded = load_text("p.toml", &text).expect("a warning only");
    let found: Vec<_> =
        loaded.warnings.diagnostics().iter().map(|d| (d.code, d.line - offset)).collect();
    assert_eq!(found, [("W0350", 8)]);
}

#[cfg(feature = "kafka")]
#[test]
fn librdkafka_option_values_are_not_shown() {
    // Passwords of Kafka are covered in the lines a fault is shown with.
    let text = format!(
        "{KAFKA}[sources.b.librdkafka_options]\n'sasl.password' = 'hunter22'\n'group.id' = 'mine'"
    );
    let report = load_text("p.toml", &file(&text).0).expect_err("group.id is owned");
    let shown = report.render(usercom_sink::config::Style::Plain);
    assert!(shown.contains("group.id") && !shown.contains("hunter22"), "{shown}");
}

#[cfg(not(feature = "kafka"))]
#[test]
fn kafka_source_without_feature_is_rejected() {
    // A build without the client says which feature brings it.
    let text =
        "[sources.b]\ntype = 'kafka'\nbootstrap_servers = 'k:1'\ngroup_id = 'g'\ntopics = ['t']";
    let report = load_text("p.toml", &file(text).0).expect_err("there is no client");
    let fault = report.diagnostics().iter().find(|d| d.code == "E0106").expect("E0106");
    assert!(fault.help.as_deref().is_some_and(|help| help.contains("`kafka`")), "{fault:?}");
}

/// The snippet where it must stand: settings of the root before the first table.
fn file(snippet: &str) -> (String, usize) {
    if snippet.starts_with('[') {
        (format!("{GOOD}{snippet}\n"), GOOD.lines().count())
    } else {
        (format!("{snippet}\n{GOOD}"), 0)
    }
}

fn assert_refused(rows: &[(&str, &str, usize)]) {
    let mut wrong = Vec::new();
    for (snippet, code, line) in rows {
        let (text, offset) = file(snippet);
        let Err(report) = load_text("p.toml", &text) else {
            wrong.push(format!("{snippet}\n  was loaded"));
            continue;
        };
        let errors: Vec<_> = report
            .diagnostics()
            .iter()
            .filter(|d| !d.code.starts_with('W'))
            // A source that is not in this build says so next to its other faults.
            .filter(|d| d.code != "E0106" || *code == "E0106")
            .map(|d| (d.code, d.line.wrapping_sub(offset)))
            .collect();
        if errors != [(*code, *line)] {
            wrong.push(format!("{snippet}\n  expected {code} at {line}, found {errors:?}"));
        }
        for diagnostic in report.diagnostics() {
            if diagnostic.help.is_none() {
                wrong.push(format!("{snippet}\n  {} has no help", diagnostic.code));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn schema_and_loader_reject_the_same_files() {
    // What an editor with the schema marks is what `validate` refuses, at the right line, once.
    let validator = jsonschema::validator_for(pipeline_schema()).expect("a valid schema");
    assert!(BY_SCHEMA.len() >= 40);
    for (snippet, ..) in BY_SCHEMA {
        let instance = json("p.toml", &file(snippet).0);
        assert!(!validator.is_valid(&instance), "the schema accepts\n{snippet}");
    }
    assert_refused(BY_SCHEMA);
}

#[test]
fn loader_rejects_what_a_schema_cannot_express() {
    // Names, addresses and patterns are looked at; the schema accepts every one of these files.
    let validator = jsonschema::validator_for(pipeline_schema()).expect("a valid schema");
    for (snippet, ..) in BY_LOADER {
        let instance = json("p.toml", &file(snippet).0);
        assert!(validator.is_valid(&instance), "the schema refuses\n{snippet}");
    }
    assert_refused(BY_LOADER);
}

#[test]
fn suspicious_settings_load_with_a_warning() {
    // A warning has a place and help, and does not keep the pipeline from running.
    for (snippet, code, line) in WARNED {
        let (text, offset) = file(snippet);
        let loaded = load_text("p.toml", &text).expect(snippet);
        let found: Vec<_> =
            loaded.warnings.diagnostics().iter().map(|d| (d.code, d.line - offset)).collect();
        assert_eq!(found, [(*code, *line)], "{snippet}");
        assert_eq!((loaded.warnings.errors(), loaded.warnings.warnings()), (0, 1));
    }
}

#[test]
fn file_without_sources_or_sinks_is_rejected_by_schema_and_loader() {
    // An empty pipeline is no pipeline.
    let validator = jsonschema::validator_for(pipeline_schema()).expect("a valid schema");
    for (text, codes) in [
        ("", &["E0102", "E0102"][..]),
        ("[sources]\n[sinks]\n", &["E0108", "E0108"]),
        ("[sources.a]\ntype = 'stdin'\n", &["E0102"]),
    ] {
        assert!(!validator.is_valid(&json("p.toml", text)), "{text}");
        let report = load_text("p.toml", text).expect_err(text);
        let found: Vec<_> = report.diagnostics().iter().map(|d| d.code).collect();
        assert_eq!(found, codes, "{text}");
    }
    for (name, text) in [("p.json", "[]"), ("p.json", ""), ("p.yaml", "just text"), ("p.yaml", "")]
    {
        let report = load_text(name, text).expect_err(text);
        let first = &report.diagnostics()[0];
        assert_eq!((first.code, first.line), ("E0103", 1), "{name} {text:?}");
    }
}
