//! What is said against a `fluvio` source's settings beyond the schema.

use usercom_sink::config::fault::ConfigPath;
use usercom_sink::config::sink::UsercomSink;
use usercom_sink::config::{FixedEnvironment, Report, SourceText, Style, load};

const SINK: &str = "\n[sinks.crm]\ntype = \"usercom\"\ninputs = [\"b\"]\napp = \"acme\"\n\
                    api_key = \"k\"\npreset = \"segment\"\n";

fn look(source: &str) -> Result<(), Report> {
    let text = format!("[sources.b]\ntype = \"fluvio\"\n{source}{SINK}");
    let file = SourceText::new("p.toml", text);
    load(&[file], &FixedEnvironment::default(), &|_: &ConfigPath, _: &UsercomSink| Vec::new())
        .map(|loaded| assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings))
}

#[test]
fn contradictory_fluvio_settings_are_rejected() {
    // Addresses, names, partitions, starts and encryption are looked at before anything connects.
    for (source, code, line) in [
        ("topic = 'x'\nendpoint = 'host'", "E0360", 4),
        ("topic = 'x'\nendpoint = 'host:0'", "E0360", 4),
        ("topic = 'x'\nendpoint = 'host:9003'\nprofile = 'local'", "E0360", 5),
        ("topic = 'Events_1'", "E0361", 3),
        ("topic = '-x'", "E0361", 3),
        ("topic = 'x'\nconsumer = ' '", "E0362", 4),
        ("topic = 'x'\nconsumer = 'c'\noffset.strategy = 'none'", "E0362", 4),
        ("topic = 'x'\npartitions = []", "E0363", 4),
        ("topic = 'x'\npartitions = [1, 2, 1]", "E0363", 4),
        ("topic = 'x'\npartitions = [4294967295]", "E0363", 4),
        ("topic = 'x'\noffset.start = {}", "E0364", 4),
        ("topic = 'x'\noffset.start = { absolute = 1, from_end = 1 }", "E0364", 4),
        ("topic = 'x'\ntransforms = [{ uses = '' }]", "E0365", 4),
        (
            "topic = 'x'\ntls = { enabled = true, domain = 'd', ca_file = 'a', crt_file = 'b', key_file = 'c' }",
            "E0366",
            4,
        ),
        ("topic = 'x'\nendpoint = 'h:1'\ntls.enabled = true", "E0366", 5),
        ("topic = 'x'\ndecoding.codec = 'csv'", "E0355", 4),
        ("topic = 'x'\ndecoding = { codec = 'regex', pattern = '(' }", "E0311", 4),
    ] {
        let Err(report) = look(source) else {
            panic!("taken: {source}");
        };
        let told: Vec<_> = report.diagnostics().iter().map(|d| (d.code, d.line)).collect();
        assert!(told.contains(&(code, line)), "{source}\n{}", report.render(Style::Plain));
        assert!(report.diagnostics().iter().all(|d| d.help.is_some()), "{source}");
    }
}

#[test]
fn every_valid_fluvio_setting_is_accepted() {
    // Words, numbers and lists for partitions; words and places for starts; all of TLS.
    for source in [
        "topic = 'x'",
        "topic = 'x'\npartitions = 'all'",
        "topic = 'x'\npartitions = 3",
        "topic = 'x'\npartitions = [0, 2]\nconsumer = 'crm'",
        "topic = 'x'\noffset.start = 'end'\noffset.strategy = 'auto'",
        "topic = 'x'\noffset.start = { from_end = 100 }\noffset.strategy = 'none'",
        "topic = 'x'\nendpoint = '[::1]:9003'\nmax_bytes = 1000000",
        "topic = 'x'\nendpoint = 'h:9003'\ntls = { enabled = true, domain = 'd', ca_file = 'a', crt_file = 'b', key_file = 'c' }",
        "topic = 'x'\nprofile = 'local'\ntransforms = [{ uses = 'filter', with = { key = 'v' } }]",
    ] {
        if let Err(report) = look(source) {
            panic!("{source}\n{}", report.render(Style::Plain));
        }
    }
}
