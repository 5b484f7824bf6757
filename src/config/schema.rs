//! The JSON Schema of the pipeline file, generated from the typed settings. It is committed as
//! `schema/pipeline.schema.json` for editors, and `check` validates against it.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, SchemaGenerator};
use serde_json::Value;

use super::pipeline::Pipeline;

/// The JSON Schema (draft 2020-12) of the pipeline file.
pub fn pipeline_schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(generate);
    &SCHEMA
}

/// The schema for editors: it accepts what [`pipeline_schema`] accepts and the program runs.
pub fn editor_schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> =
        LazyLock::new(|| super::editor_schema::editor_schema(pipeline_schema()));
    &SCHEMA
}

/// The schema for editors as text, as it is committed: two spaces a level, a line break at the end.
pub fn pipeline_schema_text() -> String {
    let schema = editor_schema();
    let mut text = serde_json::to_string_pretty(schema).expect("a JSON value always becomes text");
    text.push('\n');
    text
}

fn generate() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(bound_u32));
    SchemaGenerator::new(settings).into_root_schema_for::<Pipeline>().to_value()
}

/// The generator names the width of a number but bounds only the narrow ones.
fn bound_u32(schema: &mut Schema) {
    if schema.get("format").and_then(Value::as_str) == Some("uint32")
        && schema.get("maximum").is_none()
    {
        schema.insert("maximum".to_owned(), u32::MAX.into());
    }
}
