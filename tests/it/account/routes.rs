//! The routes of the API and the pages of its lists, as its reference gives them.

use serde_json::{Value, json};

use super::behaviour::Route;

/// One page of a list, by cursor.
pub(super) fn page(all: &[Value], query: &str, size: usize, path: &str) -> (u16, Value) {
    let names = ["cursor=", "page=", "offset="];
    let mut pairs = query.split('&');
    let cursor = pairs.find_map(|pair| names.iter().find_map(|name| pair.strip_prefix(name)));
    let from: usize = cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or_default();
    let until = all.len().min(from + size);
    let next = (until < all.len()).then(|| format!("{path}?cursor={until}"));
    (
        200,
        json!({
            "count": all.len(), "next": next, "previous": null, "results": all[from.min(until)..until],
        }),
    )
}

/// The route of a method and the words of a path.
pub(super) fn route(method: &str, words: &[&str]) -> Route {
    match (method, words) {
        ("GET", ["attributes"]) => Route::AttributeList,
        ("POST", ["attributes"]) => Route::AttributeCreate,
        ("POST", ["users", "update_or_create"]) => Route::Upsert,
        ("POST", ["users"]) => Route::UserCreate,
        ("POST", ["users", "merge"]) => Route::Merge,
        ("GET", ["users", "search"]) => Route::UserSearch,
        ("GET", ["users" | "users-by-id", _]) => Route::UserRead,
        ("PUT", ["users" | "users-by-id", _]) => Route::UserUpdate,
        ("POST", ["events"] | ["users-by-id", _, "events"]) => Route::Event,
        ("GET", ["users" | "users-by-id", _, "events"]) => Route::EventHistory,
        ("GET", ["users" | "users-by-id", _, "ping_hits"]) => Route::ViewHistory,
        ("POST", ["site-views"]) => Route::View,
        ("PUT", ["companies-by-id", _]) => Route::CompanyUpsert,
        ("POST", ["companies"]) => Route::CompanyCreate,
        ("GET", ["companies" | "companies-by-id", _]) => Route::CompanyRead,
        ("PUT", ["companies", _]) => Route::CompanyUpdate,
        ("POST", ["companies", _, "add_member"]) => Route::AddMember,
        _ => Route::Unknown,
    }
}
