//! Loads the initial state from a JSON file. Every element is passed to the route that its body
//! would reach over HTTP.
//!
//! # Invariants
//! The first element that the API would reject stops the start and is named.

use std::path::Path;

use serde_json::{Map, Value};

use super::EmulatorError;
use super::context::RouteContext;
use super::reply::RouteError;
use super::routes::{self, Handler};
use super::store::AccountStore;

/// The keys of the file in loading order: users may refer to companies and attributes.
const SECTIONS: [(&str, Handler); 4] = [
    ("attributes", routes::create_attribute),
    ("events", routes::define_event),
    ("companies", routes::create_company),
    ("users", routes::create_user),
];

/// Loads the file's content.
pub(super) fn load_seed(store: &mut AccountStore, path: &Path) -> Result<(), EmulatorError> {
    let fault = |place: String, why: String| EmulatorError::Seed { path: path.into(), place, why };
    let text = std::fs::read(path)
        .map_err(|source| EmulatorError::SeedFile { path: path.into(), source })?;
    let mut file: Map<String, Value> = serde_json::from_slice(&text)
        .map_err(|error| fault("the file".into(), error.to_string()))?;
    for (section, route) in SECTIONS {
        let items = match file.remove(section) {
            None => continue,
            Some(Value::Array(items)) => items,
            Some(_) => return Err(fault(section.into(), "expected a list".into())),
        };
        for (index, item) in items.into_iter().enumerate() {
            let place = format!("{section}[{index}]");
            let Value::Object(body) = item else {
                return Err(fault(place, "expected an object".into()));
            };
            create(store, body, route).map_err(|why| fault(place, why))?;
        }
    }
    match file.keys().next() {
        None => Ok(()),
        Some(key) => {
            let known = "attributes, events, companies, users";
            Err(fault(format!("`{key}`"), format!("unknown key; there are {known}")))
        }
    }
}

fn create(
    store: &mut AccountStore,
    body: Map<String, Value>,
    route: Handler,
) -> Result<(), String> {
    match store.try_run(|db| RouteContext::internal(db, body), route) {
        Ok(_) => Ok(()),
        Err(RouteError::Reply(reply)) => Err(reply.body.unwrap_or_default().to_string()),
        Err(RouteError::Store(error)) => Err(error.to_string()),
    }
}
