//! The tap: a live sample of records with the calls and requests that they become.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;

use super::playground::TriedRecord;
use super::sse::{StreamPermit, stream, too_many_streams};
use super::{ApiState, page};
use crate::record::Record;
use crate::telemetry::TappedRecord;

#[derive(Debug, Deserialize)]
pub(super) struct TapQuery {
    sink: String,
}

pub(super) async fn events(
    State(state): State<ApiState>,
    Query(query): Query<TapQuery>,
) -> Response {
    let Some(service) = state.service.clone() else {
        return (StatusCode::NOT_FOUND, "no pipeline runs here\n").into_response();
    };
    let components = service.components.present();
    let Some(sink) = components.sinks.get(&query.sink) else {
        return (StatusCode::NOT_FOUND, "there is no such sink\n").into_response();
    };
    let Some(permit) = StreamPermit::take() else { return too_many_streams() };
    let Some(viewer) = sink.metrics.activity().tap().open() else { return too_many_streams() };
    let permit = Arc::new(permit);
    let name: Arc<str> = query.sink.into();
    stream(futures::stream::unfold(viewer, move |mut viewer| {
        let (service, permit, name) = (service.clone(), Arc::clone(&permit), Arc::clone(&name));
        async move {
            let _held = &permit;
            loop {
                let tapped = match viewer.recv().await {
                    Ok(tapped) => tapped,
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return None,
                };
                let location = tapped.location.clone();
                let Some(mut tried) = service.tap.view(&name, record(tapped)).await else {
                    continue;
                };
                if !service.show_values {
                    hide_values(&mut tried);
                }
                let html = page::tapped(location.as_deref(), &tried).into_string();
                return Some((Event::default().event("record").data(html), viewer));
            }
        }
    }))
}

fn record(tapped: TappedRecord) -> Record {
    let mut record = Record::new(tapped.body);
    record.meta = tapped.meta;
    record
}

/// Leaves names and types, and takes the values away.
fn hide_values(tried: &mut TriedRecord) {
    tried.record = match serde_json::from_str::<Value>(&tried.record) {
        Ok(mut value) => {
            hide(&mut value);
            value.to_string()
        }
        Err(_) => "(not JSON)".to_owned(),
    };
    for rule in &mut tried.rules {
        // A reason quotes the value that did not fit.
        rule.why = if rule.fired { "its condition holds" } else { "" }.to_owned();
    }
    for call in &mut tried.calls {
        let kind = call.get("type").cloned();
        hide(call);
        if let (Some(kind), Some(call)) = (kind, call.as_object_mut()) {
            call.insert("type".to_owned(), kind);
        }
    }
    for request in &mut tried.requests {
        request.path = request.route.clone();
        if let Some(body) = &mut request.body {
            hide(body);
        }
    }
    tried.notes.clear();
    for error in &mut tried.errors {
        *error = "it goes to the dead letters".to_owned();
    }
}

fn hide(value: &mut Value) {
    match value {
        Value::Null => {}
        Value::Bool(_) => *value = "boolean".into(),
        Value::Number(_) => *value = "number".into(),
        Value::String(_) => *value = "string".into(),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(entries) => entries.values_mut().for_each(hide),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_values_appear_nowhere() {
        // Guarantees that no value of a record is left in any part of what the tap shows.
        let secret = "ann@example.com";
        let mut tried = TriedRecord {
            record: format!(r#"{{"email":"{secret}","n":[1,true,null]}}"#),
            rules: vec![super::super::playground::TriedRule {
                name: "r".to_owned(),
                fired: false,
                why: format!("`.email` is {secret}"),
            }],
            calls: vec![serde_json::json!({ "type": "identify", "userId": secret })],
            requests: vec![super::super::playground::TriedRequest {
                method: "PUT".to_owned(),
                path: format!("users-by-id/{secret}/"),
                route: "users-by-id/{id}/".to_owned(),
                body: Some(serde_json::json!({ "email": secret })),
            }],
            notes: vec![secret.to_owned()],
            errors: vec![secret.to_owned()],
        };
        hide_values(&mut tried);
        let shown = page::tapped(None, &tried).into_string();
        assert!(!shown.contains(secret) && !shown.contains("ann"), "{shown}");
        assert!(shown.contains("identify") && shown.contains("email"), "{shown}");
    }
}
