//! The same in Vector's own language: the host parses, the program of `segment.vrl` maps, the host
//! prints. Compiled once, run for every record, as Vector does it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use vrl::compiler::runtime::Runtime;
use vrl::compiler::state::RuntimeState;
use vrl::compiler::{Program, TargetValue, TimeZone};
use vrl::value::{Secrets, Value};

use crate::reference::Agents;

/// The program, and what it runs in.
pub(crate) struct Mapper {
    program: Program,
    runtime: RefCell<Runtime>,
}

impl Mapper {
    pub(crate) fn new() -> Self {
        let functions = vrl::stdlib::all();
        let compiled = vrl::compiler::compile(include_str!("segment.vrl"), &functions);
        let program = match compiled {
            Ok(compiled) => compiled.program,
            Err(faults) => panic!("the program does not compile: {faults:?}"),
        };
        Self { program, runtime: RefCell::new(Runtime::new(RuntimeState::default())) }
    }

    /// The body of one record's write.
    pub(crate) fn body(&self, record: &str, agents: &Agents) -> String {
        let mut event: Value = serde_json::from_str(record).expect("the records are sound");
        if let (Some(agent), Some(event)) = (agent(&event, agents), event.as_object_mut()) {
            event.insert("agent".into(), agent);
        }
        let mut target = TargetValue {
            value: event,
            metadata: Value::Object(BTreeMap::new()),
            secrets: Secrets::default(),
        };
        let mut runtime = self.runtime.borrow_mut();
        runtime
            .resolve(&mut target, &self.program, &TimeZone::default())
            .expect("the program takes every record");
        runtime.clear();
        serde_json::to_string(&target.value).expect("a value is JSON")
    }
}

/// The browser, for those records in which the others use it.
fn agent(event: &Value, agents: &Agents) -> Option<Value> {
    let event = event.as_object()?;
    if event.get("type")?.to_str_lossy()? != "identify" {
        return None;
    }
    let user_agent = event.get("context")?.as_object()?.get("userAgent")?.to_str_lossy()?;
    let (family, version) = agents.get(&*user_agent)?;
    let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::from);
    let fields = [("family".into(), text(family)), ("version".into(), text(version))];
    Some(Value::Object(BTreeMap::from(fields)))
}
