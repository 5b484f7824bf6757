//! The configuration from outside: the schema and the loader refuse the same files, every
//! fault has its place, and no secret is shown.

mod bounds;
mod examples;
mod interpolation;
mod messages;
mod refusals;
mod robustness;

use usercom_sink::config::fault::{ConfigPath, Fault};
use usercom_sink::config::sink::UsercomSink;
use usercom_sink::config::{
    Environment, FixedEnvironment, Loaded, Report, SinkConfig, SourceText, load, plain_json,
};

/// A pipeline without faults that the snippets of these tests are added to.
const GOOD: &str = r#"
[sources.app]
type = "file"
include = ["logs/*.ndjson"]

[sinks.crm]
type = "usercom"
inputs = ["app"]
app = "acme"
api_key = "${KEY}"
preset = "segment"
"#;

fn environment() -> FixedEnvironment {
    let mut environment = FixedEnvironment::default();
    environment.vars.insert("KEY".into(), "s3cr3t-key".into());
    environment
}

fn no_mapping_faults(_: &ConfigPath, _: &UsercomSink) -> Vec<Fault> {
    Vec::new()
}

fn load_text(name: &str, text: &str) -> Result<Loaded, Report> {
    load_with(name, text, &environment())
}

fn load_with(name: &str, text: &str, environment: &dyn Environment) -> Result<Loaded, Report> {
    load(&[SourceText::new(name, text)], environment, &no_mapping_faults)
}

fn json(name: &str, text: &str) -> serde_json::Value {
    plain_json(&[SourceText::new(name, text)]).unwrap_or_else(|report| {
        panic!("{}", report.render(usercom_sink::config::Style::Plain));
    })
}

fn usercom(loaded: &Loaded) -> &UsercomSink {
    let SinkConfig::Usercom(sink) = &loaded.pipeline.sinks[0];
    sink
}
