//! What there is to know of user agents: asked of the crate before anything is timed, so that the
//! mapper has it for nothing, as if it had seen each agent before.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use usercom_sink::mapping::Plan;

/// What a user agent says of itself.
pub(super) struct Agent {
    pub(super) family: Option<String>,
    pub(super) version: Option<String>,
    pub(super) os: Option<String>,
    pub(super) device: Option<String>,
}

pub(super) type Agents = HashMap<String, Agent>;

/// The user agents of some records.
pub(super) fn of<'l>(plan: &Plan, lines: impl Iterator<Item = &'l str>, now: Timestamp) -> Agents {
    let mut agents = Agents::new();
    for agent in lines.filter_map(named) {
        agents.entry(agent).or_insert_with_key(|agent| ask(plan, agent, now));
    }
    agents
}

fn named(line: &str) -> Option<String> {
    let record: Value = serde_json::from_str(line).ok()?;
    Some(record["context"]["userAgent"].as_str()?.trim().to_owned())
}

fn ask(plan: &Plan, agent: &str, now: Timestamp) -> Agent {
    let record = json!({"type": "identify", "userId": "u", "context": {"userAgent": agent}});
    let mut body = Value::Null;
    crate::bodies(plan, &record.to_string(), now, |made| {
        body = serde_json::from_str(made).expect("bodies are JSON");
    });
    let get = |name: &str| body[name].as_str().map(str::to_owned);
    Agent {
        family: get("browser_family"),
        version: get("browser_version"),
        os: get("os"),
        device: get("device_type"),
    }
}
