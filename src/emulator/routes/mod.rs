//! The table of routes: which path and method call which handler.
//!
//! # Invariants
//! Paths are matched segment by segment while percent-encoded, so that an external id with an
//! encoded slash stays one segment.

mod attributes;
mod companies;
mod events;
mod mass;
mod merge;
mod moment;
mod search;
mod site_views;
mod tags;
mod users;
mod values;

use percent_encoding::percent_decode_str;

use super::context::{PathKey, RouteContext};
use super::reply::RouteResult;

pub(super) use attributes::{
    create as create_attribute, create_from_value, describe as describe_attribute,
};
pub(super) use companies::{create as create_company, describe as describe_company};
pub(super) use events::{define as define_event, describe as describe_event, describe_definition};
pub(super) use site_views::describe as describe_page_view;
pub(super) use users::{create as create_user, describe as describe_user};

/// Handles one request.
pub(super) type Handler = fn(&RouteContext<'_>) -> RouteResult;

/// A path of the API with its methods. `:id` matches digits, any other `:name` matches any text.
pub(super) struct ApiRoute {
    pub(super) template: &'static str,
    pub(super) methods: &'static [(&'static str, Handler)],
}

const fn route(template: &'static str, methods: &'static [(&'static str, Handler)]) -> ApiRoute {
    ApiRoute { template, methods }
}

/// Paths without a variable come before paths that would also match them.
static ROUTES: &[ApiRoute] = &[
    route("users/", &[("GET", users::list), ("POST", users::create)]),
    route("users/update_or_create/", &[("POST", users::update_or_create)]),
    route("users/search/", &[("GET", search::search)]),
    route("users/merge/", &[("POST", merge::merge)]),
    route("users/mass_update_standard_attributes/", &[("PUT", mass::standard)]),
    route("users/mass_update_custom_attributes/", &[("PUT", mass::custom), ("POST", mass::custom)]),
    route(
        "users-by-id/mass_update_standard_attributes/",
        &[("PUT", mass::standard_by_external_id)],
    ),
    route(
        "users-by-id/mass_update_custom_attributes/",
        &[("PUT", mass::custom_by_external_id), ("POST", mass::custom_by_external_id)],
    ),
    route("users/:id/", USER),
    route("users-by-id/:custom_id/", USER),
    route("users/:id/events/", &[("GET", events::history)]),
    route(
        "users-by-id/:custom_id/events/",
        &[("GET", events::history), ("POST", events::by_external_id)],
    ),
    route("users/:id/ping_hits/", &[("GET", site_views::history)]),
    route("users-by-id/:custom_id/ping_hits/", &[("GET", site_views::history)]),
    route("users/:id/add_tag/", &[("POST", tags::add_to_user)]),
    route("users-by-id/:custom_id/add_tag/", &[("POST", tags::add_to_user)]),
    route("users/:id/add_many_tags/", &[("POST", tags::add_many_to_user)]),
    route("users-by-id/:custom_id/add_many_tags/", &[("POST", tags::add_many_to_user)]),
    route("users/:id/remove_tag/", REMOVE_USER_TAG),
    route("users-by-id/:custom_id/remove_tag/", REMOVE_USER_TAG),
    route("users/:id/set_attribute/", &[("POST", values::set_on_user)]),
    route("users-by-id/:custom_id/set_attribute/", &[("POST", values::set_on_user)]),
    route("users/:id/set_multiple_attributes/", &[("POST", values::set_many_on_user)]),
    route("users-by-id/:custom_id/set_multiple_attributes/", &[("POST", values::set_many_on_user)]),
    route("users/:id/remove_attribute/", REMOVE_USER_VALUE),
    route("users-by-id/:custom_id/remove_attribute/", REMOVE_USER_VALUE),
    route("events/", &[("GET", events::definitions), ("POST", events::by_remote_id)]),
    route("site-views/", &[("POST", site_views::create)]),
    route("attributes/", &[("GET", attributes::list), ("POST", attributes::create)]),
    route("attributes/:id/", &[("GET", attributes::get), ("DELETE", attributes::delete)]),
    route("attribute-type/:name_std/users/", &[("GET", attributes::type_on_users)]),
    route("attribute-type/:name_std/companies/", &[("GET", attributes::type_on_companies)]),
    route("companies/", &[("GET", companies::list), ("POST", companies::create)]),
    route("companies/:id/", COMPANY),
    route("companies-by-id/:custom_id/", COMPANY),
    route("companies/:id/add_member/", &[("POST", companies::add_member)]),
    route(
        "companies-by-id/:custom_id/add_member/",
        &[("POST", companies::add_member_by_external_id)],
    ),
    route("companies/:id/remove_member/", &[("POST", companies::remove_member)]),
    route("companies/:id/set_attribute/", &[("POST", values::set_on_company)]),
    route("companies-by-id/:custom_id/set_attribute/", &[("POST", values::set_on_company)]),
    route("companies/:id/set_multiple_attributes/", &[("POST", values::set_many_on_company)]),
    route(
        "companies-by-id/:custom_id/set_multiple_attributes/",
        &[("POST", values::set_many_on_company)],
    ),
    route("companies/:id/add_tag/", &[("POST", tags::add_to_company)]),
    route("companies-by-id/:custom_id/add_tag/", &[("POST", tags::add_to_company)]),
    route("companies/:id/remove_tag/", REMOVE_COMPANY_TAG),
    route("companies-by-id/:custom_id/remove_tag/", REMOVE_COMPANY_TAG),
];

const USER: &[(&str, Handler)] =
    &[("GET", users::get), ("PUT", users::update), ("DELETE", users::delete)];
const COMPANY: &[(&str, Handler)] =
    &[("GET", companies::get), ("PUT", companies::update), ("DELETE", companies::delete)];
// The documentation names both methods for a removal, so both work.
const REMOVE_USER_TAG: &[(&str, Handler)] =
    &[("POST", tags::remove_from_user), ("DELETE", tags::remove_from_user)];
const REMOVE_COMPANY_TAG: &[(&str, Handler)] =
    &[("POST", tags::remove_from_company), ("DELETE", tags::remove_from_company)];
const REMOVE_USER_VALUE: &[(&str, Handler)] =
    &[("POST", values::remove_from_user), ("DELETE", values::remove_from_user)];

/// The route of a path relative to the API's base, still encoded, and the key in it.
pub(super) fn find(path: &str) -> Option<(&'static ApiRoute, PathKey)> {
    let segments: Vec<&str> = path.strip_suffix('/')?.split('/').collect();
    ROUTES.iter().find_map(|route| Some((route, matches(route.template, &segments)?)))
}

fn matches(template: &str, segments: &[&str]) -> Option<PathKey> {
    let mut given = segments.iter();
    let mut key = PathKey::None;
    for wanted in template.trim_end_matches('/').split('/') {
        let segment = given.next()?;
        if wanted == ":id" {
            let digits = segment.bytes().all(|byte| byte.is_ascii_digit());
            key = PathKey::Number(segment.parse().ok().filter(|_| digits)?);
        } else if wanted.starts_with(':') {
            let name = percent_decode_str(segment).decode_utf8().ok()?;
            key = PathKey::Name(Some(name.into_owned()).filter(|name| !name.is_empty())?);
        } else if wanted != *segment {
            return None;
        }
    }
    given.next().is_none().then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_slash_stays_in_its_segment() {
        // Guarantees that external ids of any characters reach the route complete; a plain slash
        // ends the segment.
        let (route, key) = find("users-by-id/a%2Fb%3F%20%C3%A9%2E%2E/events/").unwrap();
        assert_eq!(route.template, "users-by-id/:custom_id/events/");
        assert_eq!(key, PathKey::Name("a/b? é..".into()));
        assert!(find("users-by-id/a/b/events/").is_none());
        assert!(find("users-by-id//").is_none());
        assert!(find("users-by-id/%FF/").is_none());
    }

    #[test]
    fn remote_ids_are_digits_only() {
        // Guarantees that `users/:id/` matches no sign and no text, and that named paths take
        // precedence.
        assert_eq!(find("users/12/").unwrap().1, PathKey::Number(12));
        assert!(find("users/+12/").is_none());
        assert!(find("users/abc/").is_none());
        assert!(find("users/12").is_none());
        assert_eq!(find("users/search/").unwrap().0.template, "users/search/");
    }
}
