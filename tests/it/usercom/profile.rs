//! Calls to ops: every spelling, every limit.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use usercom_sink::call::{Call, CallKind};
use usercom_sink::config::account::AccountConfig;
use usercom_sink::schedule::{ExternalUserId, FieldClass, Op, PackedFields, UserKeys};
use usercom_sink::usercom::{PlanError, PlanWarnings, Settings, WantedKeys, plan_call};

use super::fake::{at, call};

const ALL: Settings = Settings {
    context_fields: true,
    merge_anonymous: false,
    match_by: WantedKeys::NONE,
    account: AccountConfig::SAFE,
};
const NOW: i64 = 1_800_000_000;

pub(super) fn planned(call: &Call<'_>) -> Result<(Vec<Op>, PlanWarnings), PlanError> {
    let mut notes = PlanWarnings::default();
    let ops = plan_call(call, &ALL, at(NOW), &mut notes)?;
    Ok((ops.into_iter().collect(), notes))
}

pub(super) fn fields(
    kind: CallKind,
    about: &Value,
    context: &Value,
) -> (PackedFields, PlanWarnings) {
    let mut asked = call(kind, about, context);
    asked.group_id = (kind == CallKind::Group).then(|| "g1".into());
    let (mut ops, notes) = planned(&asked).unwrap();
    match ops.remove(0) {
        Op::Identify { fields, .. } | Op::Company { fields, .. } => (fields, notes),
        Op::Track { data, .. } => (data, notes),
        op => panic!("{op:?}"),
    }
}

pub(super) fn values(set: &PackedFields) -> BTreeMap<String, Value> {
    set.iter()
        .map(|field| (field.name.to_string(), serde_json::from_str(field.json).unwrap()))
        .collect()
}

pub(super) fn traits(about: &Value) -> BTreeMap<String, Value> {
    values(&fields(CallKind::Identify, about, &Value::Null).0)
}

pub(super) fn map(value: Value) -> BTreeMap<String, Value> {
    serde_json::from_value(value).unwrap()
}

#[test]
fn every_alias_of_a_person_field_is_mapped() {
    // Each spelling lands in the standard field and nothing else is written.
    let rows: [(&str, &[&str], Value); 14] = [
        ("email", &["email", "Email", "email_address", "emailAddress"], json!("a@b.c")),
        (
            "first_name",
            &["firstName", "firstname", "first_name", "given_name", "givenName"],
            json!("Ada"),
        ),
        (
            "last_name",
            &["lastName", "lastname", "last_name", "family_name", "surname"],
            json!("King"),
        ),
        ("phone_number", &["phone", "phone_number", "phoneNumber", "mobile"], json!("+48123")),
        ("city", &["city"], json!("Oslo")),
        ("region", &["region", "state"], json!("West")),
        ("country", &["country"], json!("NO")),
        ("timezone", &["timezone"], json!("Europe/Oslo")),
        (
            "gravatar_url",
            &["avatar", "avatarURL", "avatar_URL", "avatar_url", "avatarUrl", "picture"],
            json!("https://a/b"),
        ),
        ("google_url", &["googleUrl", "google_url", "googleURL"], json!("https://g")),
        ("linkedin_url", &["linkedinUrl", "linkedin_url", "linkedinURL"], json!("https://l")),
        ("twitter_url", &["twitterUrl", "twitter_url", "twitterURL"], json!("https://t")),
        ("facebook_url", &["facebookUrl", "facebook_url", "facebookURL"], json!("https://f")),
        ("company_custom_id", &["company_custom_id"], json!("g1")),
    ];
    for (field, spellings, value) in rows {
        for spelling in spellings {
            let (set, _) = fields(CallKind::Identify, &json!({*spelling: value}), &Value::Null);
            assert_eq!(values(&set), map(json!({field: value})), "{spelling}");
            assert_eq!(set.iter().next().unwrap().class, FieldClass::Standard);
        }
    }
    for part in ["region", "state"] {
        let about = json!({"address": {"city": "Oslo", part: "West", "country": "NO"}});
        let expected = map(json!({"city": "Oslo", "region": "West", "country": "NO"}));
        assert_eq!(traits(&about), expected);
    }
}

#[test]
fn first_usable_alias_wins() {
    // null and "" are passed over, 0 and false are values; every spelling is spent.
    let about = json!({"firstname": "b", "firstName": "a", "email": "", "Email": "x@y.z",
                       "phone": null, "mobile": 0});
    let expected = json!({"first_name": "a", "email": "x@y.z", "phone_number": "0"});
    assert_eq!(traits(&about), map(expected));
}

#[test]
fn gender_and_status_become_codes() {
    // Any usual spelling becomes User.com's number; others are left out and noted.
    for (code, words) in [
        (1, vec![json!("U"), json!("unknown"), json!(1)]),
        (2, vec![json!("M"), json!(" Male "), json!("man"), json!("2")]),
        (3, vec![json!("f"), json!("FEMALE"), json!("w"), json!("woman"), json!("K")]),
    ] {
        for word in words {
            assert_eq!(traits(&json!({"gender": word})), map(json!({"gender": code})), "{word}");
        }
    }
    for (code, word) in [(1, "Visitor"), (1, "v"), (2, "USER"), (2, "u")] {
        assert_eq!(traits(&json!({"status": word})), map(json!({"status": code})));
    }
    let (set, notes) = fields(CallKind::Identify, &json!({"gender": "x"}), &Value::Null);
    assert!(set.is_empty());
    assert_eq!(&*notes.dropped[0].0, "gender");
}

#[test]
fn full_name_is_split_when_no_other_name_exists() {
    // First word and rest, only when both names are missing.
    let split = map(json!({"first_name": "Ada", "last_name": "King Lovelace"}));
    assert_eq!(traits(&json!({"name": " Ada  King Lovelace "})), split);
    assert_eq!(traits(&json!({"name": "Ada"})), map(json!({"first_name": "Ada"})));
    let given = json!({"name": "X Y", "lastName": "King"});
    assert_eq!(traits(&given), map(json!({"last_name": "King"})));
}

#[test]
fn other_traits_become_custom_attributes() {
    // Objects are flattened, lists kept, nulls left out, identity not passed on.
    let about = json!({
        "plan": "pro", "logins": 109, "beta": false, "none": null, "skills": ["a", 1],
        "company": {"name": "Acme", "plan": {"tier": 2}},
        "id": "u1", "userId": "u1", "anonymousId": "x", "groupId": "g",
    });
    let (set, _) = fields(CallKind::Identify, &about, &Value::Null);
    let expected = json!({
        "plan": "pro", "logins": 109, "beta": false, "skills": ["a", 1],
        "company_name": "Acme", "company_plan_tier": 2,
    });
    assert_eq!(values(&set), map(expected));
    assert!(set.iter().all(|field| field.class == FieldClass::Custom));
}

#[test]
fn tags_as_list_or_comma_string_are_accepted() {
    // Tags are united with what is there.
    for given in [json!(["a", " b", "a", ""]), json!("a, b,,a")] {
        let (set, _) = fields(CallKind::Identify, &json!({"tags": given}), &Value::Null);
        assert_eq!(values(&set), map(json!({"tags": ["a", "b"]})));
        assert_eq!(set.iter().next().unwrap().class, FieldClass::SetUnion);
    }
    assert!(traits(&json!({"tags": []})).is_empty());
}

#[test]
fn time_before_1970_is_rejected() {
    // An event or page view of 1969 is refused with its reason; nothing is put in its place.
    for kind in [CallKind::Track, CallKind::Page] {
        let mut asked = call(kind, &json!({"url": "https://x.pl/"}), &Value::Null);
        asked.name = Some("e".into());
        asked.timestamp = Some(at(-1));
        assert_eq!(planned(&asked).unwrap_err().code, "timestamp_before_1970");
        asked.timestamp = Some(at(0));
        assert!(planned(&asked).is_ok());
    }
}

#[test]
fn page_with_any_url_fits_the_limits() {
    // Hosts keep to ASCII, are never cut, and paths are cut at 2,048 characters.
    let page = |url: &str| {
        let (ops, notes) =
            planned(&call(CallKind::Page, &json!({"url": url}), &Value::Null)).unwrap();
        let Op::Page { domain, path, .. } = &ops[0] else { panic!("{ops:?}") };
        (domain.to_string(), path.to_string(), notes)
    };
    let (domain, path, _) = page("https://ŻÓŁW.pl/a?b");
    assert_eq!((&*domain, &*path), ("xn--w-uga1v8h.pl", "/a"));
    let (domain, path, _) = page("https://xn--zzzzzz-.Example/a/b?c#d");
    assert_eq!((&*domain, &*path), ("xn--zzzzzz-.example", "/a/b"));
    let (_, path, notes) = page(&format!("https://x.pl/{}", "p".repeat(3_000)));
    assert_eq!((path.len(), notes.cropped.len()), (2_048, 1));
    let (domain, _, notes) = page(&format!("//{}/x", "h.".repeat(300)));
    assert_eq!((&*domain, notes.dropped.len()), ("unknown", 1));
}

#[test]
fn context_becomes_profile_fields() {
    // The seed's list of context fields, under its names, and only when asked for.
    let agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6_1 like Mac OS X) AppleWebKit/605.1.15 \
                 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1";
    let context = json!({
        "userAgent": agent, "os": {"name": "iOS", "version": "17.6.1"},
        "device": {"type": "iOS", "name": "iPhone15,2", "id": "secret"}, "locale": "fr-FR",
        "screen": {"width": 393, "height": "852"}, "ip": "[::1]", "timezone": "Europe/Paris",
        "page": {"url": "https://shop.example/a?b"}, "campaign": {"source": "x"},
        "location": {"city": "Paris", "country": "FR"},
    });
    let expected = json!({
        "user_agent": agent, "os": "iOS 17.6.1", "device_name": "iPhone15,2", "device_type": "ios",
        "language": "fr-FR", "resolution": "393x852", "ip_address": "::1",
        "browser_family": "Mobile Safari", "browser_version": "17.6", "timezone": "Europe/Paris",
        "current_url": "https://shop.example/a?b", "city": "Paris", "country": "FR",
    });
    let (set, _) = fields(CallKind::Identify, &Value::Null, &context);
    assert_eq!(values(&set), map(expected));
    let quiet = Settings { context_fields: false, ..ALL };
    let asked = call(CallKind::Identify, &Value::Null, &context);
    let ops = plan_call(&asked, &quiet, at(NOW), &mut PlanWarnings::default()).unwrap();
    assert_eq!(
        ops[0],
        Op::Identify {
            user: ExternalUserId::from("u1"),
            fields: PackedFields::default(),
            keys: UserKeys::default(),
        }
    );
}

#[test]
fn client_hint_brands_name_the_browser() {
    // The decoy brand is passed over and the product preferred to its engine.
    for decoy in ["Not A;Brand", "Not)A;Brand", "Not/A)Brand", "Not_A Brand", " Not A.Brand"] {
        let brands = json!([{"brand": decoy, "version": "8"}, {"brand": "Chromium", "version": "128"},
                            {"brand": "Microsoft Edge", "version": "128"}]);
        let context = json!({"userAgentData": {"brands": brands}, "userAgent": "x"});
        let got = values(&fields(CallKind::Identify, &Value::Null, &context).0);
        assert_eq!(
            (&got["browser_family"], &got["browser_version"]),
            (&json!("Edge"), &json!("128"))
        );
    }
}

#[test]
fn track_data_is_flat_and_time_not_in_the_future() {
    // Objects flattened, lists as text, types kept, long texts cut, the future moved to now.
    let about = json!({"price": 9.5, "n": "7", "ok": true, "gone": null, "list": [1, "a"],
                       "item": {"sku": "s", "size": {"w": 2}}, "long": "z".repeat(300)});
    let mut asked = call(CallKind::Track, &about, &Value::Null);
    asked.name = Some(format!("  {}", "e".repeat(300)).into());
    asked.timestamp = Some(at(NOW + 60));
    let (ops, notes) = planned(&asked).unwrap();
    let [Op::Track { name, at: when, data, .. }] = ops.as_slice() else {
        panic!("{ops:?}");
    };
    assert_eq!((name.len(), *when), (255, Some(at(NOW))));
    let expected = json!({"price": 9.5, "n": "7", "ok": true, "list": "[1,\"a\"]",
                          "item_sku": "s", "item_size_w": 2, "long": "z".repeat(255)});
    assert_eq!(values(data), map(expected));
    assert_eq!(notes.cropped.len(), 2);
    asked.timestamp = None;
    let (ops, _) = planned(&asked).unwrap();
    assert!(matches!(ops[0], Op::Track { at: Some(when), .. } if when == at(NOW)));
}

#[test]
fn page_has_domain_and_path() {
    // From the context, the properties or the top level; the path from the URL where it is missing.
    for (about, context, domain, path) in [
        (json!({}), json!({"page": {"url": "https://A.example/x?y#z"}}), "a.example", "/x"),
        (
            json!({"url": "https://p.example/p"}),
            json!({"page": {"url": "https://c.example/c"}}),
            "c.example",
            "/c",
        ),
        (json!({"url": "https://p.example/p", "path": "/q"}), json!({}), "p.example", "/q"),
        (json!({}), json!({"url": "https://t.example"}), "t.example", "/"),
        (json!({"url": "shop.example/deep?x=1"}), json!({}), "shop.example", "/deep"),
        (json!({"url": "https://p.example/p", "path": "q"}), json!({}), "p.example", "/q"),
        (json!({"path": "/only"}), json!({}), "unknown", "/only"),
    ] {
        let (ops, _) = planned(&call(CallKind::Page, &about, &context)).unwrap();
        let [Op::Page { domain: d, path: p, at: Some(_), .. }] = ops.as_slice() else {
            panic!("{ops:?}");
        };
        assert_eq!((&**d, &**p), (domain, path), "{about} {context}");
    }
}

#[test]
fn group_is_a_company_and_a_membership() {
    // Semantic traits reach their fields, the rest are the company's own attributes.
    let about = json!({
        "company_name": "Acme", "email": "i@acme.example", "description": "d", "employees": "120",
        "phone": "1 2", "industry": "steel", "tags": "x", "website": "w",
        "address": {"street": "Main 1", "city": "Oslo", "postalCode": "0150", "state": "W", "country": "NO"},
    });
    let expected = json!({
        "name": "Acme", "email": "i@acme.example", "description": "d", "size": 120,
        "phone_numbers": ["12"], "industry": "steel", "tags": ["x"], "website": "w",
        "address": "Main 1, 0150 Oslo, W, NO", "city": "Oslo", "region": "W", "country": "NO",
        "postal_code": "0150",
    });
    let (set, _) = fields(CallKind::Group, &about, &Value::Null);
    assert_eq!(values(&set), map(expected));
    let plain =
        json!({"address": "Main 1, Oslo", "city": "Oslo", "phones": ["1", 2], "size": "1-5"});
    let (set, notes) = fields(CallKind::Group, &plain, &Value::Null);
    let expected = json!({"address": "Main 1, Oslo", "city": "Oslo", "phone_numbers": ["1", "2"]});
    assert_eq!(values(&set), map(expected));
    assert_eq!(&*notes.dropped[0].0, "size");

    let mut asked = call(CallKind::Group, &json!({}), &json!({}));
    asked.group_id = Some("g1".into());
    let (ops, _) = planned(&asked).unwrap();
    assert!(matches!(ops.as_slice(), [Op::Company { .. }, Op::Join { .. }]), "{ops:?}");
}

#[test]
fn call_without_required_fields_is_rejected() {
    // Each missing essential has its own code.
    let no_user = Call::new(CallKind::Identify);
    let mut long = Call::new(CallKind::Identify);
    long.user_id = Some("x".repeat(256).into());
    let group = call(CallKind::Group, &json!({}), &json!({}));
    let track = call(CallKind::Track, &json!({}), &json!({}));
    let page = call(CallKind::Page, &json!({}), &json!({}));
    for (asked, code) in [
        (no_user, "no_identity"),
        (long, "id_too_long"),
        (group, "no_group_id"),
        (track, "no_event"),
        (page, "no_page"),
    ] {
        assert_eq!(planned(&asked).unwrap_err().code, code);
    }
}

#[test]
fn identity_uses_fallbacks_in_order() {
    // userId, else anonymousId, else what the traits say; an empty id is none.
    let mut asked = call(CallKind::Identify, &json!({"id": "t1"}), &Value::Null);
    asked.anonymous_id = Some("a1".into());
    let whose = |asked: &Call<'_>| match planned(asked).unwrap().0.remove(0) {
        Op::Identify { user, .. } => user.as_str().to_owned(),
        op => panic!("{op:?}"),
    };
    assert_eq!(whose(&asked), "u1");
    asked.user_id = Some("  ".into());
    assert_eq!(whose(&asked), "a1");
    asked.anonymous_id = None;
    assert_eq!(whose(&asked), "t1");
}

#[test]
fn both_identities_merge_only_when_configured() {
    // With `merge_anonymous`, the anonymous record goes into the identified one, at the end.
    let mut asked = call(CallKind::Identify, &json!({}), &Value::Null);
    asked.anonymous_id = Some("a1".into());
    assert_eq!(planned(&asked).unwrap().0.len(), 1);
    let merging = Settings { merge_anonymous: true, ..ALL };
    let ops = plan_call(&asked, &merging, at(NOW), &mut PlanWarnings::default()).unwrap();
    let merge = Op::Merge { from: ExternalUserId::from("a1"), into: ExternalUserId::from("u1") };
    assert_eq!(ops.last(), Some(&merge));
}

#[test]
fn alias_call_always_merges() {
    // The previous id goes into the user id; equal ids need nothing, a missing one has its reason.
    let mut asked = Call::new(CallKind::Alias);
    asked.user_id = Some("u1".into());
    asked.anonymous_id = Some("a1".into());
    assert_eq!(planned(&asked).unwrap_err().code, "no_previous_id");
    asked.previous_id = Some(" guest ".into());
    let merge = Op::Merge { from: ExternalUserId::from("guest"), into: ExternalUserId::from("u1") };
    assert_eq!(planned(&asked).unwrap().0, [merge]);
    asked.previous_id = Some("u1".into());
    assert_eq!(planned(&asked).unwrap().0, []);
    asked.user_id = None;
    assert_eq!(planned(&asked).unwrap_err().code, "no_identity");
}

#[test]
fn path_without_host_belongs_to_its_app() {
    // A screen's domain is its app's bundle, else the app's name; an address goes before both.
    for (context, domain) in [
        (json!({"app": {"namespace": "com.acme.shop", "name": "Shop"}}), "com.acme.shop"),
        (json!({"app": {"name": "Shop"}}), "Shop"),
        (json!({}), "unknown"),
        (json!({"app": {"name": "Shop"}, "page": {"url": "https://a.b/c"}}), "a.b"),
    ] {
        let asked = call(CallKind::Page, &json!({"path": "/Home"}), &context);
        let ops = planned(&asked).unwrap().0;
        let Op::Page { domain: found, .. } = &ops[0] else { panic!("{ops:?}") };
        assert_eq!(&**found, domain);
    }
}
