//! Users: upsert, fields and their limits, custom attributes, search, merge, tags.

use serde_json::{Value, json};

use super::Server;

#[tokio::test]
async fn upsert_matches_by_external_id_only() {
    // One external id is one user; an email is not unique; the response is `created` and `id` only.
    let server = Server::new().await;
    let path = "users/update_or_create/";
    let body = json!({ "custom_id": "u1", "email": "a@b.c", "city": "Oslo" });
    assert_eq!(server.post(path, body).await, (201, json!({ "created": true, "id": 1 })));
    let body = json!({ "custom_id": "u1", "first_name": "Ann", "last_name": "Lee" });
    assert_eq!(server.post(path, body).await, (200, json!({ "created": false, "id": 1 })));
    let body = json!({ "custom_id": "u2", "email": "a@b.c" });
    assert_eq!(server.post(path, body).await, (201, json!({ "created": true, "id": 2 })));
    assert_eq!(server.post(path, json!({ "email": "a@b.c" })).await.0, 400);
    let (_, user) = server.get("users-by-id/u1/").await;
    for (field, wanted) in [
        ("email", json!("a@b.c")),
        ("city", json!("Oslo")),
        ("name", json!("Ann Lee")),
        ("gender", json!("unknown")),
        ("status", json!("visitor")),
        ("notifications", json!(true)),
        ("page_views", json!(0)),
        ("last_seen", Value::Null),
    ] {
        assert_eq!(user[field], wanted, "{field}");
    }
    assert_eq!(user["user_key"].as_str().unwrap().len(), 12);
    assert!(user["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(server.post("users/", json!({ "custom_id": "u1" })).await.0, 400);
    assert_eq!(server.put("users/2/", json!({ "custom_id": "u1" })).await.0, 400);
}

#[tokio::test]
async fn partial_update_keeps_other_fields() {
    // PUT is partial, by remote and by external id; DELETE removes the user.
    let server = Server::new().await;
    server.user("u").await;
    server.put("users/1/", json!({ "city": "Oslo" })).await;
    let (status, user) =
        server.put("users-by-id/u/", json!({ "gender": 3, "status": 2, "score": 7 })).await;
    assert_eq!(status, 200);
    let seen = (&user["city"], &user["gender"], &user["status"], &user["score"]);
    assert_eq!(seen, (&json!("Oslo"), &json!("female"), &json!("user"), &json!(7)));
    assert_eq!(server.put("users-by-id/unknown/", json!({})).await.0, 404);
    assert_eq!(server.delete("users-by-id/u/").await, (204, Value::Null));
    assert_eq!(server.get("users/1/").await, (404, json!({ "detail": "Not found." })));
    assert_eq!(server.delete("users/1/").await.0, 404);
}

#[tokio::test]
async fn limits_and_types_are_enforced() {
    // A value one beyond each limit is rejected with the field named, and nothing is written.
    let server = Server::new().await;
    let long = |count: usize| "é".repeat(count);
    for (field, max) in [("first_name", 40), ("last_name", 40), ("phone_number", 64), ("city", 64)]
    {
        let (status, body) = server.post("users/", json!({ field: long(max + 1) })).await;
        let message = format!("Ensure this field has no more than {max} characters.");
        assert_eq!((status, body), (400, json!({ field: [message] })));
        assert_eq!(server.post("users/", json!({ field: long(max) })).await.0, 201);
    }
    let count = server.get("users/").await.1["count"].clone();
    for body in [
        json!({ "gender": 0 }),
        json!({ "gender": 4 }),
        json!({ "gender": "male" }),
        json!({ "status": 3 }),
        json!({ "status": "user" }),
        json!({ "custom_id": "" }),
        json!({ "custom_id": null }),
        json!({ "custom_id": 7 }),
        json!({ "email": "unknown" }),
        json!({ "city": null }),
        json!({ "country": 47 }),
        json!({ "unsubscribed": "true" }),
        json!({ "score": "7" }),
        json!({ "tags": "one" }),
    ] {
        let (status, answer) = server.post("users/", body.clone()).await;
        assert_eq!(status, 400, "{body}");
        let field = body.as_object().unwrap().keys().next().unwrap();
        assert!(answer[field][0].is_string(), "{answer}");
    }
    let (_, both) = server.post("users/", json!({ "gender": 9, "score": "x", "city": "o" })).await;
    assert_eq!(both.as_object().unwrap().len(), 2, "every bad field is named: {both}");
    assert_eq!(server.get("users/").await.1["count"], count);
}

#[tokio::test]
async fn attribute_slug_is_unique() {
    // A definition has a slug that is unique in its content type; invalid ones are rejected.
    let server = Server::new().await;
    let body = |name: &str, value_type: &str, content_type: &str| json!({ "name": name, "value_type": value_type, "content_type": content_type });
    let (status, made) =
        server.post("attributes/", body("API String Attribute", "string", "clientuser")).await;
    assert_eq!(status, 201);
    let wanted = json!({
        "id": 1, "name": "API String Attribute", "name_std": "api_string_attribute",
        "value_type": "string", "content_type": "clientuser",
    });
    assert_eq!(made, wanted);
    assert_eq!(server.get("attributes/1/").await, (200, wanted.clone()));
    assert_eq!(server.get("attributes/").await.1["results"], json!([wanted]));
    assert_eq!(
        server.get("attribute-type/api_string_attribute/users/").await.1["value_type"],
        "string"
    );
    let name32 = "x".repeat(32);
    let name33 = "x".repeat(33);
    for (name, value_type, content_type, wanted) in [
        ("api string attribute", "integer", "clientuser", 400),
        ("api string attribute", "integer", "company", 201),
        (name32.as_str(), "json", "ticket", 201),
        (name33.as_str(), "json", "ticket", 400),
        ("", "string", "clientuser", 400),
        ("a", "text", "clientuser", 400),
        ("a", "string", "event", 400),
        ("a", "fixed", "clientuser", 400),
        ("Email", "string", "clientuser", 400),
    ] {
        let (status, answer) =
            server.post("attributes/", body(name, value_type, content_type)).await;
        assert_eq!(status, wanted, "{name} {value_type} {content_type}: {answer}");
    }
    let mut fixed = body("plan", "fixed", "clientuser");
    fixed["choices"] = json!(["free", "pro"]);
    fixed["allow_multiple_choices"] = json!(false);
    let (status, made) = server.post("attributes/", fixed).await;
    assert_eq!((status, &made["choices"]), (201, &json!(["free", "pro"])));
    assert_eq!(server.delete("attributes/1/").await.0, 204);
    assert_eq!(server.get("attributes/1/").await.0, 404);
}

#[tokio::test]
async fn custom_attribute_rejects_other_types() {
    // Values of the right type are returned flat and in the list; wrong types get 400; unknown
    // names are counted.
    let server = Server::new().await;
    let rows = [
        ("boolean", json!(true), json!("true")),
        ("date", json!("2026-01-02"), json!("2026-01-02T00:00:00Z")),
        ("datetime", json!("2026-01-02T03:04:05.000000Z"), json!("2026-01-02")),
        ("float", json!(1.5), json!("1.5")),
        ("integer", json!(12), json!("12")),
        ("json", json!({ "a": [1] }), Value::Null),
        ("string", json!("x".repeat(255)), json!("x".repeat(256))),
    ];
    server.user("u").await;
    for (value_type, good, bad) in rows {
        let name = format!("My {value_type}");
        let slug = format!("my_{value_type}");
        server.attribute(&name, value_type, "clientuser").await;
        for key in [&name, &slug] {
            let (status, user) = server.put("users-by-id/u/", json!({ key: good })).await;
            assert_eq!((status, &user[&slug]), (200, &good), "{key}");
        }
        let (status, answer) = server.put("users-by-id/u/", json!({ &slug: bad })).await;
        assert_eq!(status, 400, "{value_type}");
        assert!(answer[&slug][0].is_string(), "{answer}");
    }
    let offset = json!({ "my_datetime": "2026-01-02T05:04:05+02:00" });
    let (_, user) = server.put("users/1/", offset).await;
    assert_eq!(user["my_datetime"], "2026-01-02T03:04:05.000000Z");
    assert_eq!(user["attributes"].as_array().unwrap().len(), 7);
    let (status, user) = server.put("users/1/", json!({ "unheard_of": 1 })).await;
    assert_eq!((status, user.get("unheard_of")), (200, None));
    let (_, stats) = server.admin("GET", "stats", Value::Null).await;
    assert_eq!(stats["ignored_attributes"], 1);
}

#[tokio::test]
async fn attributes_can_be_set_alone_and_removed() {
    // set_attribute, set_multiple_attributes, remove_attribute and the mass updates work as
    // documented.
    let server = Server::new().await;
    server.user("u").await;
    server.user("v").await;
    server.attribute("plan", "string", "clientuser").await;
    server.attribute("age", "integer", "clientuser").await;
    let set = json!({ "attribute": "plan", "value": "pro" });
    let (status, user) = server.post("users-by-id/u/set_attribute/", set).await;
    assert_eq!((status, &user["plan"]), (200, &json!("pro")));
    let unknown = json!({ "attribute": "nope", "value": 1 });
    assert_eq!(server.post("users/1/set_attribute/", unknown).await.0, 400);
    let many = json!({ "plan": "free", "age": 3, "nope": 1 });
    let (_, user) = server.post("users/1/set_multiple_attributes/", many).await;
    assert_eq!((&user["plan"], &user["age"]), (&json!("free"), &json!(3)));
    let (_, user) =
        server.post("users-by-id/u/remove_attribute/", json!({ "attribute": "plan" })).await;
    assert_eq!((user.get("plan"), &user["age"]), (None, &json!(3)));
    let mass = json!({ "ids": ["u", "v"], "attribute": "city", "value": "Oslo" });
    let path = "users-by-id/mass_update_standard_attributes/";
    assert_eq!(server.put(path, mass).await, (200, json!({ "status": "ok" })));
    let mass = json!({ "ids": [1, 2], "attribute": "plan", "value": "team" });
    assert_eq!(server.put("users/mass_update_custom_attributes/", mass).await.0, 200);
    let (_, user) = server.get("users-by-id/v/").await;
    assert_eq!((&user["city"], &user["plan"]), (&json!("Oslo"), &json!("team")));
    let mass = json!({ "ids": ["u", "unknown"], "attribute": "city", "value": "Rome" });
    assert_eq!(server.put(path, mass).await.0, 404);
    assert_eq!(server.get("users-by-id/u/").await.1["city"], "Oslo", "all or none");
}

#[tokio::test]
async fn users_are_found_by_each_search() {
    // Each search has its documented response format.
    let server = Server::new().await;
    server.attribute("age", "integer", "clientuser").await;
    for (own, age, city) in [("a", 9, "Oslo"), ("b", 10, "Rome"), ("c", 30, "Osaka")] {
        let body = json!({
            "custom_id": own, "email": "x+y@b.c", "phone_number": "+471", "age": age, "city": city,
        });
        server.post("users/", body).await;
    }
    let (status, user) = server.get("users/search/?email=x%2By%40b.c").await;
    assert_eq!((status, &user["custom_id"]), (200, &json!("a")));
    let (_, many) = server.get("users/search/?email=x%2By%40b.c&many=true").await;
    assert_eq!(many.as_array().unwrap().len(), 3);
    let key = user["user_key"].as_str().unwrap();
    assert_eq!(server.get(&format!("users/search/?key={key}")).await.1["custom_id"], "a");
    for none in ["email=no@b.c", "key=000000000000"] {
        assert_eq!(server.get(&format!("users/search/?{none}")).await.0, 404, "{none}");
    }
    assert_eq!(server.get("users/search/?email=no@b.c&many=true").await, (200, json!([])));
    for (query, wanted) in [
        ("phone_number=%2B471", 3),
        ("age=10", 1),
        ("age__gte=10", 2),
        ("age__lt=10", 1),
        ("age__lte=10&city__startswith=Os", 1),
        ("city__contains=Os", 2),
        ("city__icontains=OS", 2),
        ("custom_id=c", 1),
        ("search=updated_at&min=1", 3),
        ("search=updated_at&max=1", 0),
        ("search=last_seen&min=1", 0),
    ] {
        let (status, found) = server.get(&format!("users/search/?{query}")).await;
        assert_eq!((status, &found["count"]), (200, &json!(wanted)), "{query}");
    }
    for bad in ["", "nope__gte=1", "age__near=1", "age=x", "search=birthday", "city'%20OR%201=1"] {
        assert_eq!(server.get(&format!("users/search/?{bad}")).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn merge_keeps_everything() {
    // Events, page views, memberships, tags, attributes move; the parent's values take precedence.
    let server = Server::new().await;
    server.attribute("plan", "string", "clientuser").await;
    server.attribute("team", "string", "clientuser").await;
    let body = json!({ "custom_id": "p", "city": "Oslo", "plan": "pro", "tags": ["t1"] });
    server.post("users/", body).await;
    let body = json!({ "city": "Rome", "country": "it", "plan": "free", "team": "x", "tags": ["t1", "t2"] });
    let (_, other) = server.post("users/", body).await;
    server.post("companies/", json!({ "name": "Acme" })).await;
    server.post("companies/1/add_member/", json!({ "user_id": 2 })).await;
    server.post("events/", json!({ "user_id": 2, "name": "e2" })).await;
    server.post("events/", json!({ "user_id": 1, "name": "e1" })).await;
    let view = json!({
        "client_user": other["user_key"], "page_domain": "d", "page_path": "/",
        "timestamp": "2026-01-01T00:00:00Z",
    });
    assert_eq!(server.post("site-views/", view.clone()).await.0, 201);
    for (body, wanted) in [
        (json!({ "parent": 1, "users_list": [9] }), 404),
        (json!({ "parent": 1, "users_list": [1] }), 400),
        (json!({ "parent": 1, "user_list": [2] }), 400),
        (json!({ "parent": "1", "users_list": [2] }), 400),
    ] {
        assert_eq!(server.post("users/merge/", body.clone()).await.0, wanted, "{body}");
    }
    let merge = json!({ "parent": 1, "users_list": [2] });
    assert_eq!(server.post("users/merge/", merge).await, (200, json!({ "success": true })));
    assert_eq!(server.get("users/2/").await.0, 404);
    assert_eq!(server.post("site-views/", view).await.0, 400, "the merged key is gone");
    let (_, user) = server.get("users-by-id/p/").await;
    for (field, wanted) in [
        ("city", json!("Oslo")),
        ("country", json!("it")),
        ("plan", json!("pro")),
        ("team", json!("x")),
        ("page_views", json!(1)),
        ("last_seen", json!("2026-01-01T00:00:00.000000Z")),
    ] {
        assert_eq!(user[field], wanted, "{field}");
    }
    let tags: Vec<_> = user["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    assert_eq!(tags, ["t1", "t2"]);
    assert_eq!(user["companies"][0]["name"], "Acme");
    let (_, events) = server.get("users/1/events/").await;
    assert_eq!(events["count"], 2);
    assert_eq!(server.get("users/1/ping_hits/").await.1["count"], 1);
    assert_eq!(server.get("companies/1/").await.1["employees"], json!([1]));
}

#[tokio::test]
async fn tags_accumulate_until_removed() {
    // A write adds tags and removes none; remove_tag works with both methods.
    let server = Server::new().await;
    server.post("users/", json!({ "custom_id": "u", "tags": ["a"] })).await;
    server.put("users/1/", json!({ "tags": ["b"] })).await;
    let (_, answer) = server.post("users/1/add_tag/", json!({ "name": "c" })).await;
    assert_eq!(answer, json!({ "created": true, "tag": { "name": "c" } }));
    let (_, answer) = server.post("users-by-id/u/add_tag/", json!({ "name": "c" })).await;
    assert_eq!(answer["created"], false);
    let many = json!({ "tag_names": ["d", "e"] });
    assert_eq!(server.post("users-by-id/u/add_many_tags/", many).await.0, 200);
    let names = async || {
        let (_, user) = server.get("users/1/").await;
        let tags = user["tags"].as_array().unwrap().clone();
        tags.iter().map(|tag| tag["name"].as_str().unwrap().to_owned()).collect::<String>()
    };
    assert_eq!(names().await, "abcde");
    assert_eq!(server.post("users-by-id/u/remove_tag/", json!({ "name": "a" })).await.0, 200);
    assert_eq!(server.call("DELETE", "users/1/remove_tag/", json!({ "name": "b" })).await.0, 200);
    assert_eq!(names().await, "cde");
    assert_eq!(server.post("users/1/add_tag/", json!({})).await.0, 400);
    assert_eq!(server.post("users/9/add_tag/", json!({ "name": "a" })).await.0, 404);
}
