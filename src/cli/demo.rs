//! `demo`: runs the quick-start pipeline against a local emulator and shows what arrived. It leaves
//! no file behind.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::emulator::wait_for_signal;
use super::load::load_texts;
use super::output::{Exit, eprint, fail, print};
use super::progress::ProgressDisplay;
use super::run::exit_of;
use crate::buffer::Store;
use crate::config::{FixedEnvironment, SourceText, Style};
use crate::emulator::{Assumptions, Emulator, EmulatorConfig, Faults, start};
use crate::pipeline::{BuiltPipeline, RunOptions, Shutdown, Summary};
use crate::sink::Destination;
use crate::source::ReadMode;
use crate::telemetry::Metrics;

const PIPELINE: &str = include_str!("../../examples/quickstart.toml");
const RECORDS: &str = include_str!("../../examples/quickstart.ndjson");
const API_KEY: &str = "emulator";

/// A person who is in the account before the run, because of a form: without an id.
const SUBSCRIBER: &str = r#"{"email": "Bo.Baker@Example.com", "first_name": "Bo"}"#;

/// Run a local demo.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink demo
  usercom-sink demo --keep")]
pub(super) struct DemoCommand {
    /// Keep the emulator running afterwards, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// The file of the demo's records; removed on drop.
struct RecordsFile(PathBuf);

impl RecordsFile {
    fn write() -> std::io::Result<Self> {
        let name = format!("usercom-sink-demo-{}.ndjson", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, RECORDS)?;
        Ok(Self(path))
    }
}

impl Drop for RecordsFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "the demo's record file could not be removed; delete it");
        }
    }
}

impl DemoCommand {
    pub(super) async fn run(self, style: Style) -> Exit {
        match self.show(style).await {
            Ok(exit) => exit,
            Err(message) => fail(&message),
        }
    }

    async fn show(&self, style: Style) -> Result<Exit, String> {
        let config = EmulatorConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            api_key: API_KEY.to_owned(),
            data: None,
            seed: None,
            faults: Faults::default(),
            assumptions: Assumptions::default(),
        };
        let emulator = start(config).await.map_err(|error| error.to_string())?;
        eprint(&format!("the User.com emulator listens on {}\n", emulator.base_url()));
        let records = RecordsFile::write().map_err(|e| format!("cannot write the records: {e}"))?;
        let body = reqwest::Body::from(SUBSCRIBER);
        let subscriber = request(&emulator, reqwest::Method::POST, "users/", Some(body)).await?;
        let summary = run_quickstart(&emulator, &records, style).await?;
        drop(records);
        let landed = landed(&emulator, &subscriber["id"]).await?;
        let exit = print(&format!("{summary}\n{landed}"));
        if exit != Exit::Done {
            return Ok(exit);
        }
        if self.keep {
            eprint(&format!(
                "still running: {} (key {API_KEY}); Ctrl-C stops it\n",
                emulator.base_url()
            ));
            wait_for_signal().await;
        }
        emulator.stop().await;
        Ok(exit_of(&summary, ReadMode::Once))
    }
}

async fn run_quickstart(
    emulator: &Emulator,
    records: &RecordsFile,
    style: Style,
) -> Result<Summary, String> {
    let vars = BTreeMap::from([
        ("USERCOM_ENDPOINT".to_owned(), emulator.base_url()),
        ("USERCOM_API_KEY".to_owned(), API_KEY.to_owned()),
        ("QUICKSTART_RECORDS".to_owned(), records.0.display().to_string()),
    ]);
    let environment = FixedEnvironment { vars, ..FixedEnvironment::default() };
    let text = SourceText::new("examples/quickstart.toml", PIPELINE);
    let loaded = load_texts(&[text], &environment).map_err(|report| report.render(style))?;
    let options = RunOptions {
        mode: ReadMode::Once,
        store: Store::in_memory().map_err(|error| error.to_string())?,
        metrics: Metrics::default(),
        stop: Shutdown::default(),
        destination: Destination::Account,
    };
    let built =
        BuiltPipeline::build(&loaded.pipeline, options).await.map_err(|error| error.to_string())?;
    let display = ProgressDisplay::show(built.status());
    let summary = built.run().await.map_err(|error| error.to_string());
    drop(display);
    summary
}

/// One request to the emulator; returns the body of the answer.
async fn request(
    emulator: &Emulator,
    method: reqwest::Method,
    path: &str,
    body: Option<reqwest::Body>,
) -> Result<Value, String> {
    let mut request = reqwest::Client::new()
        .request(method, format!("{}{path}", emulator.base_url()))
        .header("Authorization", format!("Token {API_KEY}"))
        .header("Accept", "*/*; version=2")
        .header("Content-Type", "application/json");
    if let Some(body) = body {
        request = request.body(body);
    }
    let reply = request.send().await.and_then(reqwest::Response::error_for_status);
    let reply = reply.map_err(|error| error.to_string())?;
    reply.json().await.map_err(|error| error.to_string())
}

/// What User.com has now, read through its API. `subscriber` is the number of the person who was
/// there before.
async fn landed(emulator: &Emulator, subscriber: &Value) -> Result<String, String> {
    let get = async |path: &str| request(emulator, reqwest::Method::GET, path, None).await;
    let users = get("users/").await?;
    let companies = get("companies/").await?;
    let subscriber = get(&format!("users/{subscriber}/")).await?;
    let adopted = u32::from(!subscriber["custom_id"].is_null());
    let mut text = String::from("landed in User.com\n");
    let mut line = |name: &str, value: String| {
        text += &format!("  {name:<20}{value:>8}\n");
    };
    line("users", count(&users));
    line("users adopted", adopted.to_string());
    line("companies", count(&companies));
    // The first member of a company by id: the order in which users were created differs between
    // runs.
    let profile = users["results"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|user| !user["email"].is_null() && !user["companies"][0].is_null())
        .min_by_key(|user| user["custom_id"].as_str().map(|id| (id.len(), id)))
        .ok_or("no user with an e-mail is a member of a company")?;
    let number = &profile["id"];
    let events = get(&format!("users/{number}/events/")).await?;
    text += "\none of the users\n";
    for name in [
        "custom_id",
        "email",
        "first_name",
        "last_name",
        "plan",
        "seats",
        "os",
        "browser_family",
        "page_views",
        "last_seen",
    ] {
        text += &format!("  {name:<20}{}\n", profile[name]);
    }
    let companies: Vec<&str> = profile["companies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|company| company["name"].as_str())
        .collect();
    text += &format!("  {:<20}{}\n", "companies", companies.join(", "));
    text += &format!("  {:<20}{}\n", "events", count(&events));
    Ok(text)
}

fn count(page: &Value) -> String {
    page["count"].as_u64().map_or_else(|| "?".to_owned(), |n| n.to_string())
}
