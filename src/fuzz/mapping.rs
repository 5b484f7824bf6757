//! Paths, templates and conditions of a mapping table, on any record.

use serde_json::json;

use crate::config::fault::ConfigPath;
use crate::config::mapping::Rule;
use crate::mapping::{CompiledMapping, Input, Mapped, MappingError};

/// The first line is a path, the second a template, the rest the record.
pub(super) fn paths_and_templates(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let mut line = || std::str::from_utf8(parts.next().unwrap_or_default());
    let (Ok(path), Ok(template)) = (line(), line()) else { return };
    let body = parts.next().unwrap_or_default();
    let rule = json!({
        "call": "track",
        "when": { "any": [{ path: { "exists": true } }, { path: { "exists": false } }] },
        "fields": {
            "user_id": { "path": [path, ".id"], "as": "string" },
            "event": { "template": template },
            "properties.*": { "path": path, "flatten": "_" },
        },
    });
    let Ok(rule) = serde_json::from_value::<Rule>(rule) else { return };
    match CompiledMapping::compile(&ConfigPath::default(), &[rule], None) {
        Err(faults) => {
            assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.message.is_empty()));
        }
        Ok(mapping) => {
            let input = Input { body, meta: None };
            let mapped = shown(mapping.map(input));
            let explained = shown(mapping.explain(input).result);
            assert_eq!(mapped, explained, "`explain` shows what `run` does");
        }
    }
}

fn shown(result: Result<Mapped<'_>, MappingError>) -> Result<Vec<serde_json::Value>, String> {
    let mapped = result.map_err(|error| error.to_string())?;
    Ok(mapped.calls.iter().map(|call| call.call.to_json()).collect())
}
