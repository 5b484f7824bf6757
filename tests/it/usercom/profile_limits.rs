//! Limits of profiles: what is cut short, left out, or refused before a request is made.

use serde_json::{Value, json};
use usercom_sink::call::CallKind;
use usercom_sink::schedule::Op;

use super::fake::call;
use super::profile::{fields, map, planned, traits, values};

#[test]
fn values_over_limit_are_truncated_with_a_note() {
    // 40 for names, 64 for places. A phone loses its blanks first, and is never cut to another one.
    let about = json!({"firstName": "ü".repeat(41), "lastName": "x".repeat(40),
                       "phone": format!("+4 8 {}", "1".repeat(70)), "city": "y".repeat(65)});
    let (set, notes) = fields(CallKind::Identify, &about, &Value::Null);
    let got = values(&set);
    assert_eq!(got["first_name"], json!("ü".repeat(40)));
    assert_eq!(got["last_name"], json!("x".repeat(40)));
    assert_eq!(got.get("phone_number"), None);
    assert_eq!(&*notes.dropped[0].0, "phone_number");
    let fits = format!("+4 8 {}", "1".repeat(61));
    assert_eq!(traits(&json!({"phone": fits}))["phone_number"], json!(fits.replace(' ', "")));
    assert_eq!(got["city"], json!("y".repeat(64)));
    let cropped: Vec<&str> = notes.cropped.iter().map(|field| &**field).collect();
    assert_eq!(cropped, ["first_name", "city"]);
}

#[test]
fn attribute_names_fit_and_stay_unique() {
    // 32 characters; two long names that would fall together do not; two spellings of one do.
    let (one, two) = (format!("{}_one", "n".repeat(32)), format!("{}_two", "n".repeat(32)));
    let about = json!({one: 1, two: 2, "Plan Name": "a", "plan_name": "b"});
    let (set, notes) = fields(CallKind::Identify, &about, &Value::Null);
    assert_eq!(set.len(), 3, "{set:?}");
    assert!(set.iter().all(|field| field.name.chars().count() <= 32), "{set:?}");
    assert_eq!(set.get(&"n".repeat(32)), Some("1"));
    assert_eq!(notes.cropped.len(), 2);
    assert_eq!(set.get("Plan Name"), Some("\"b\""));
}

#[test]
fn attribute_never_has_the_name_of_a_field() {
    // What nested objects are called when they are flat never becomes an own field of User.com's,
    // and least of all another id. It is left out and noted.
    let about =
        json!({"custom": {"id": 7}, "Custom": {"ID": 8}, "first": {"name": "x"}, "plan": 1});
    for kind in [CallKind::Identify, CallKind::Group] {
        let (set, notes) = fields(kind, &about, &Value::Null);
        let named: Vec<_> = set.iter().map(|field| field.name).collect();
        let (expected, dropped) = match kind {
            CallKind::Identify => (vec!["plan"], 3),
            _ => (vec!["first_name", "plan"], 2),
        };
        assert_eq!(named, expected);
        assert_eq!(notes.dropped.len(), dropped, "{notes:?}");
    }
}

#[test]
fn reserved_names_are_not_attributes() {
    // Every name User.com has of its own, in either version of its API, in any case, nested or with
    // an object under it, is left out and noted; camel case is another name.
    const USER: [&str; 27] = [
        "attributes",
        "client",
        "client_user",
        "companies",
        "chat_id",
        "page_views",
        "created_at",
        "updated_at",
        "first_seen",
        "last_seen",
        "last_contacted",
        "lists",
        "key",
        "company_id",
        "most_active_time",
        "web_push_subscription",
        "browser",
        "browser_language",
        "os_type",
        "last_ip",
        "user_custom_id",
        "Created_At",
        "PAGE_VIEWS",
        "page views",
        "Chat_ID",
        "Client User",
        " attributes ",
    ];
    const COMPANY: [&str; 8] = [
        "attributes",
        "approx_employees",
        "members",
        "assigned_to",
        "created_at",
        "updated_at",
        "user_custom_id",
        "company_id",
    ];
    let lists = [(CallKind::Identify, &USER[..]), (CallKind::Group, &COMPANY[..])];
    for (kind, names) in lists {
        for name in names {
            for value in [json!("x"), json!([{"id": 1}]), json!({"a": {"b": 1}})] {
                let about = json!({*name: value, "plan": 1, "createdAt": "2024-05-21"});
                let (set, notes) = fields(kind, &about, &Value::Null);
                let expected = json!({"plan": 1, "createdAt": "2024-05-21"});
                assert_eq!(values(&set), map(expected), "{name}");
                assert_eq!(set.objects(), [], "{name}");
                assert_eq!(notes.dropped.len(), 1, "{name}: {notes:?}");
            }
        }
        let nested = json!({"page": {"views": 1}, "created": {"at": {"utc": 1}, "by": 2}});
        let (set, notes) = fields(kind, &nested, &Value::Null);
        let at = json!({"created_at_utc": 1, "created_by": 2});
        match kind {
            CallKind::Identify => assert_eq!(notes.dropped.len(), 1, "{notes:?}"),
            _ => assert_eq!(set.get("page_views"), Some("1")),
        }
        assert!(map(at).iter().all(|(name, json)| set.get(name) == Some(&*json.to_string())));
    }
}

#[test]
fn value_that_cannot_be_truncated_is_dropped() {
    // An e-mail, a link, an id or a phone that is too long is left out and noted, never cut to
    // another one; one that just fits stays.
    let mail = |length: usize| format!("{}@example.com", "a".repeat(length - 12));
    let link = |length: usize| format!("https://x.example/{}", "a".repeat(length - 18));
    let rows: [(&str, &str, String, String); 7] = [
        ("email", "email", mail(254), mail(255)),
        ("avatar", "gravatar_url", link(255), link(256)),
        ("linkedinUrl", "linkedin_url", link(255), link(256)),
        ("facebook_url", "facebook_url", link(255), link(256)),
        ("company_custom_id", "company_custom_id", "c".repeat(255), "c".repeat(256)),
        ("user_key", "user_key", "k".repeat(255), "k".repeat(256)),
        ("phone", "phone_number", "1".repeat(64), "1".repeat(65)),
    ];
    for (name, field, fits, too_long) in rows {
        assert_eq!(traits(&json!({name: fits})), map(json!({field: fits})), "{name}");
        let (set, notes) = fields(CallKind::Identify, &json!({name: too_long}), &Value::Null);
        assert!(set.is_empty() && notes.cropped.is_empty(), "{set:?}");
        assert_eq!(&*notes.dropped[0].0, field);
    }
    let about = json!({"email": mail(255), "phone": ["1".repeat(65), "2"], "zip": "9".repeat(65)});
    let (set, notes) = fields(CallKind::Group, &about, &Value::Null);
    assert_eq!(values(&set), map(json!({"phone_numbers": ["2"]})));
    assert_eq!(notes.dropped.len(), 3, "{notes:?}");
    for no_mail in ["nope", "a b@x.com", "@x.com", "a@"] {
        assert!(traits(&json!({"email": no_mail})).is_empty(), "{no_mail}");
    }
    let page = json!({"page": {"url": link(256)}});
    let (set, notes) = fields(CallKind::Identify, &json!({}), &page);
    assert_eq!((set.get("current_url"), notes.dropped.len()), (None, 1));
}

#[test]
fn polish_genders_are_known() {
    // Polish spellings, with and without their marks, in any case, and those of other languages.
    let rows = [
        (2, "mężczyzna Mezczyzna MĘŻCZYZNA m M. pan Pan męska męski Mann homme hombre uomo muž"),
        (3, "kobieta KOBIETA k K. pani Pani żeńska zenska Frau femme mujer donna žena kvinna"),
        (1, "unknown nieznana"),
    ];
    for (code, words) in rows {
        for word in words.split(' ') {
            assert_eq!(traits(&json!({"gender": word})), map(json!({"gender": code})), "{word}");
        }
    }
    // The same letters with their marks after them.
    let apart = "me\u{328}z\u{307}czyzna";
    assert_eq!(traits(&json!({"gender": apart})), map(json!({"gender": 2})));
    assert!(traits(&json!({"gender": "inna"})).is_empty());
}

#[test]
fn values_that_no_server_accepts_are_not_sent() {
    // NULs are stripped from names and values wherever they stand; a number beyond all servers is
    // left out and noted, one with useless digits is shortened.
    let about: Value = json!({
        "na\u{0}me2": "a\u{0}b", "list": ["\u{0}x"], "o": {"k\u{0}": "\u{0}"},
        "email": "a\u{0}@b.pl", "first_name": "\u{0}Ann", "tags": ["\u{0}t", "t"],
    });
    let (set, _) = fields(CallKind::Identify, &about, &Value::Null);
    let expected = json!({
        "name2": "ab", "list": ["x"], "o_k": "", "email": "a@b.pl", "first_name": "Ann",
        "tags": ["t"],
    });
    assert_eq!(values(&set), map(expected));
    let digits = "9".repeat(1_000_000);
    let long = format!("0.{}", "3".repeat(1_000));
    let text = format!(
        r#"{{"huge":1e400,"minus":-1e999,"digits":{digits},"long":{long},"fine":1.50,"n\u0000":"a\u0000b"}}"#
    );
    for kind in [CallKind::Track, CallKind::Identify] {
        let mut asked = call(kind, &Value::Null, &Value::Null);
        asked.name = Some("e\0v".into());
        asked.fields = usercom_sink::call::Object::Raw(&text);
        let (ops, notes) = planned(&asked).unwrap();
        let (Op::Track { data: set, .. } | Op::Identify { fields: set, .. }) = &ops[0] else {
            panic!("{ops:?}");
        };
        let names: Vec<_> = set.iter().map(|field| field.name).collect();
        assert_eq!(names, ["long", "fine", "n"]);
        assert_eq!((set.get("fine"), set.get("n")), (Some("1.50"), Some("\"ab\"")));
        assert_eq!(notes.dropped.len(), 3, "{notes:?}");
        if let Op::Track { name, data, .. } = &ops[0] {
            assert_eq!((&**name, data.get("long")), ("ev", Some("0.3333333333333333")));
        }
    }
}

#[test]
fn values_per_record_are_limited() {
    // 20,000 traits, 700,000 tags, as many properties: the first 1,000 are taken, the rest is
    // noted.
    let many: serde_json::Map<String, Value> =
        (0..20_000).map(|n| (format!("t{n}"), json!(n))).collect();
    for kind in [CallKind::Identify, CallKind::Group, CallKind::Track] {
        let mut asked = call(kind, &Value::Object(many.clone()), &Value::Null);
        (asked.name, asked.group_id) = (Some("e".into()), Some("g".into()));
        let (ops, notes) = planned(&asked).unwrap();
        let (Op::Identify { fields, .. }
        | Op::Company { fields, .. }
        | Op::Track { data: fields, .. }) = &ops[0]
        else {
            panic!("{kind}");
        };
        assert_eq!((fields.len(), notes.dropped.len()), (1_000, 19_000));
    }
    let tags: Vec<String> = (0..700_000).map(|n| format!("g{n}")).collect();
    for tags in [json!(tags), json!(tags.join(","))] {
        let (set, notes) = fields(CallKind::Identify, &json!({"tags": tags}), &Value::Null);
        let list: Vec<String> = serde_json::from_str(set.get("tags").unwrap()).unwrap();
        assert_eq!((list.len(), notes.dropped.len()), (1_000, 699_000));
    }
}
