//! How often a record asks for memory on its way, and for how much: counts, the same in every run,
//! so a change shows whatever else the machine is doing.
//!
//!   cargo bench --bench allocations
//!
//! A thousand records, one after the other on one thread: read by the preset, planned as ops, then
//! carried out by an executor whose requests are answered at once by a stub. What the HTTP client
//! allocates is not in it.

// A benchmark says its result.
#![allow(clippy::print_stdout)]

#[path = "support/mix.rs"]
mod mix;

use std::sync::Arc;

use allocation_counter::{AllocationInfo, measure};
use async_trait::async_trait;
use bytes::Bytes;
use futures::executor::block_on;
use usercom_sink::config::account::AccountConfig;
use usercom_sink::config::fault::ConfigPath;
use usercom_sink::config::sink::{DeliveryConfig, Preset, UsersConfig};
use usercom_sink::deliver::{ApiReply, Attempts, Method, Request, SendError, Transport};
use usercom_sink::mapping::{CompiledMapping, Input};
use usercom_sink::schedule::Op;
use usercom_sink::usercom::{
    NoopExecutorObserver, OpExecutor, PlanWarnings, PriorSend, Settings, WantedKeys, plan_call,
};

/// Answers what User.com would, as far as an executor cares, and allocates nothing for it.
struct StubTransport;

#[async_trait]
impl Transport for StubTransport {
    async fn send(&self, request: &Request, _: &mut Attempts) -> Result<ApiReply, SendError> {
        let body: &'static [u8] = match (request.method, request.route) {
            (Method::Get, "attributes/") => br#"{"next":null,"results":[]}"#,
            (Method::Post, "users/update_or_create/") => br#"{"created":true,"id":1}"#,
            (Method::Get | Method::Put, _) => br#"{"id":1,"user_key":"key","employees":[]}"#,
            _ => b"{}",
        };
        Ok(ApiReply { status: 200, body: Bytes::from_static(body) })
    }
}

fn main() {
    let (source, text) = mix::records();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let plan = CompiledMapping::compile(&ConfigPath::default(), &[], Some(Preset::Segment));
    let plan = plan.expect("the preset is sound");
    let mut ops: Vec<Op> = Vec::with_capacity(lines.len() * 4);
    let (mut reading, mut planning) = (AllocationInfo::default(), AllocationInfo::default());
    let now = usercom_sink::clock::now();
    let settings = Settings {
        context_fields: true,
        merge_anonymous: false,
        match_by: WantedKeys::NONE,
        account: AccountConfig::SAFE,
    };
    // What is made once and kept, a user agent's parts say, is not a record's.
    for round in 0..2 {
        ops.clear();
        for line in &lines {
            let mut mapped = None;
            let input = Input { body: line.as_bytes(), meta: None };
            let read = measure(|| mapped = plan.map(input).ok());
            let mapped = mapped.expect("the records are sound");
            let planned = measure(|| {
                for call in &mapped.calls {
                    let made = plan_call(&call.call, &settings, now, &mut PlanWarnings::default());
                    ops.extend(made.expect("the calls are sound"));
                }
            });
            if round == 1 {
                reading += read;
                planning += planned;
            }
        }
    }
    let usercom = || {
        let (users, delivery) = (UsersConfig::default(), DeliveryConfig::default());
        OpExecutor::new(Arc::new(StubTransport), users, delivery, Arc::new(NoopExecutorObserver))
    };
    let (fresh, known) = (usercom(), usercom());
    block_on(fresh.open()).expect("the stub answers at once");
    block_on(known.open()).expect("the stub answers at once");
    let execute = |usercom: &OpExecutor| {
        for op in &ops {
            let done = block_on(usercom.execute(op, PriorSend::None, &mut Attempts::default()));
            done.expect("the stub refuses nothing");
        }
    };
    execute(&known);
    let first = measure(|| execute(&fresh));
    let again = measure(|| execute(&known));
    println!("\n{} records from {source}, {} ops\n", lines.len(), ops.len());
    println!("| a record on average | allocations | bytes |\n|---|---|---|");
    let count = lines.len() as f64;
    for (stage, info) in [
        ("read by the preset", reading),
        ("planned as ops", planning),
        ("carried out, users not seen before", first),
        ("carried out, users known", again),
    ] {
        let (times, bytes) = (info.count_total as f64 / count, info.bytes_total as f64 / count);
        println!("| {stage} | {times:.1} | {bytes:.0} |");
    }
}
