//! The crate's own work, done the usual way: the same table, spellings, limits and names, on a tree
//! of `serde_json::Value`.
//!
//! What somebody would write who chose the tree and wanted it fast: table and spellings are made
//! once, values are moved where nobody reads them again, and nothing is done twice. It can do what
//! the table of this bench asks for, not all that a table may ask for; and what a tree forgets (the
//! order of keys, the digits of `1.50`) it cannot give back.

mod agents;
mod body;
mod company;
mod context;
mod leaves;
mod moment;
mod occurrence;
mod odd;
mod person;
mod spellings;
mod table;
mod text;

use jiff::Timestamp;
use serde_json::{Map, Value};
use usercom_sink::call::CallKind;
use usercom_sink::config::mapping::Rule;
use usercom_sink::mapping::Plan;

use agents::Agents;
use table::{Call, Table};

/// Why a record makes no bodies.
type Fault = &'static str;

/// What was left out or cut short.
#[derive(Default)]
pub(crate) struct Notes {
    cropped: Vec<String>,
    dropped: Vec<(String, &'static str)>,
    /// Values that are not of the kind their target takes.
    unread: u32,
}

impl Notes {
    fn dropped(&mut self, field: &str, why: &'static str) {
        self.dropped.push((field.to_owned(), why));
    }
}

/// A table, and what is known of user agents.
pub(crate) struct Mapper {
    table: Table,
    agents: Agents,
}

impl Mapper {
    /// A mapper whose results were found to be the crate's on records of odd shapes.
    pub(crate) fn new(rules: &[Rule], plan: &Plan, lines: &[&str], now: Timestamp) -> Self {
        let odd = odd::records();
        let all = lines.iter().copied().chain(odd.iter().map(String::as_str));
        let mapper = Self { table: Table::compile(rules), agents: agents::of(plan, all, now) };
        odd.iter().for_each(|record| odd::compare(&mapper, plan, record, now));
        mapper
    }

    /// The bodies of one record's writes.
    pub(crate) fn bodies(
        &self,
        record: &str,
        now: Timestamp,
        notes: &mut Notes,
    ) -> Result<Vec<String>, Fault> {
        let record: Value = serde_json::from_str(record).map_err(|_| "no JSON")?;
        let calls = self.table.calls(record, notes)?;
        calls.into_iter().map(|call| self.body(call, now, notes)).collect()
    }

    fn body(&self, call: Call, now: Timestamp, notes: &mut Notes) -> Result<String, Fault> {
        // Read of every record, and only to be handed on.
        std::hint::black_box((&call.message_id, &call.category));
        let user = person::own_id(&call)?;
        let body: Map<String, Value> = match call.kind {
            CallKind::Identify => person::body(user, call, &self.agents, notes),
            CallKind::Track => occurrence::track(call, now, notes)?,
            CallKind::Page => occurrence::page(user, call, now)?,
            CallKind::Group => company::body(call, notes)?,
            CallKind::Alias => return Err("the bench's table makes no alias"),
        };
        Ok(serde_json::to_string(&body).expect("a tree is JSON"))
    }
}
