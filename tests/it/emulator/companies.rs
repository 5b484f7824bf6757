//! Companies: create, change, members, attributes, tags.

use serde_json::{Value, json};

use super::Server;

#[tokio::test]
async fn company_put_before_create_is_404() {
    // PUT by external id is 404 until the company is created; a second company with the same
    // external id is rejected.
    let server = Server::new().await;
    let path = "companies-by-id/g%2F1/";
    assert_eq!(server.put(path, json!({ "name": "Acme" })).await.0, 404);
    let (status, made) =
        server.post("companies/", json!({ "custom_id": "g/1", "name": "Acme" })).await;
    assert_eq!((status, &made["employees"], &made["id"]), (201, &json!([]), &json!(1)));
    let again = json!({ "custom_id": "g/1", "name": "Other" });
    assert!(server.post("companies/", again).await.1["custom_id"][0].is_string());
    let (status, changed) =
        server.put(path, json!({ "size": 12, "phone_numbers": ["+1", "+2"] })).await;
    assert_eq!(status, 200);
    let seen = (&changed["name"], &changed["size"], &changed["phone_numbers"]);
    assert_eq!(seen, (&json!("Acme"), &json!(12), &json!(["+1", "+2"])));
    assert_eq!(server.get("companies/1/").await.1, changed);
    assert_eq!(server.get("companies/").await.1["results"], json!([changed]));
    assert_eq!(server.post("companies/update_or_create/", json!({})).await.0, 404);
    assert_eq!(server.delete(path).await.0, 204);
    assert_eq!(server.get("companies/1/").await.0, 404);
}

#[tokio::test]
async fn company_fields_are_checked() {
    // The name is mandatory, phone numbers are a list of strings, the size is a number.
    let server = Server::new().await;
    server.post("companies/", json!({ "name": "Acme" })).await;
    for body in [
        json!({ "name": null }),
        json!({ "name": " " }),
        json!({ "name": "A", "phone_numbers": "+1" }),
        json!({ "name": "A", "phone_numbers": [1] }),
        json!({ "name": "A", "size": "12" }),
        json!({ "name": "A", "address": { "street": "s" } }),
        json!({ "name": "A", "email": "unknown" }),
    ] {
        assert_eq!(server.post("companies/", body.clone()).await.0, 400, "{body}");
        assert_eq!(server.put("companies/1/", body.clone()).await.0, 400, "{body}");
    }
    assert_eq!(server.post("companies/", json!({ "custom_id": "g" })).await.0, 400);
    assert_eq!(server.get("companies/").await.1["count"], 1);
}

#[tokio::test]
async fn membership_shows_on_both_sides() {
    // add_member once or twice is one membership; company_custom_id joins only an existing company.
    let server = Server::new().await;
    server.admin("POST", "assume", json!({ "member_user": "user_custom_id" })).await;
    server.post("companies/", json!({ "custom_id": "g", "name": "Acme" })).await;
    server.user("u").await;
    for body in [json!({ "user_id": 1 }), json!({ "user_id": 1 }), json!({ "user_custom_id": "u" })]
    {
        let (status, company) = server.post("companies/1/add_member/", body).await;
        assert_eq!((status, &company["employees"]), (200, &json!([1])));
    }
    for (body, wanted) in [
        (json!({ "user_id": 9 }), 404),
        (json!({ "user_id": "u" }), 400),
        (json!({ "user_custom_id": "unknown" }), 404),
        (json!({}), 400),
    ] {
        assert_eq!(server.post("companies/1/add_member/", body.clone()).await.0, wanted, "{body}");
    }
    assert_eq!(server.post("companies-by-id/g/add_member/", json!({ "user_id": 1 })).await.0, 404);
    let (_, user) = server.get("users/1/").await;
    assert_eq!(
        (&user["companies"][0]["id"], &user["companies"][0]["name"]),
        (&json!(1), &json!("Acme"))
    );
    assert!(user["companies"][0]["member_since"].is_string());
    let upsert = json!({ "custom_id": "v", "company_custom_id": "g" });
    server.post("users/update_or_create/", upsert).await;
    assert_eq!(server.get("companies-by-id/g/").await.1["employees"], json!([1, 2]));
    let upsert = json!({ "custom_id": "v", "company_custom_id": "unheard" });
    assert_eq!(server.post("users/update_or_create/", upsert).await.0, 200);
    assert_eq!(server.admin("GET", "stats", Value::Null).await.1["ignored_companies"], 1);
    let (_, company) = server.post("companies/1/remove_member/", json!({ "user_id": 1 })).await;
    assert_eq!(company["employees"], json!([2]));
    server.delete("users/2/").await;
    assert_eq!(server.get("companies/1/").await.1["employees"], json!([]));
}

#[tokio::test]
async fn company_attributes_and_tags_are_separate_from_users() {
    // A company's attributes are those of its content type, apart from the users'.
    let server = Server::new().await;
    server.attribute("Plan", "integer", "company").await;
    server.attribute("plan", "string", "clientuser").await;
    let body = json!({ "custom_id": "g", "name": "Acme", "plan": 3, "tags": ["vip"] });
    let (status, company) = server.post("companies/", body).await;
    assert_eq!((status, &company["plan"]), (201, &json!(3)));
    assert_eq!(company["tags"][0]["name"], "vip");
    assert_eq!(server.put("companies/1/", json!({ "plan": "3" })).await.0, 400);
    let set = json!({ "attribute": "Plan", "value": 4 });
    let (_, company) = server.post("companies-by-id/g/set_attribute/", set).await;
    assert_eq!(company["plan"], 4);
    let (_, company) =
        server.post("companies/1/set_multiple_attributes/", json!({ "plan": 5 })).await;
    assert_eq!(company["plan"], 5);
    server.post("companies-by-id/g/add_tag/", json!({ "name": "new" })).await;
    server.post("companies/1/remove_tag/", json!({ "name": "vip" })).await;
    assert_eq!(server.get("companies/1/").await.1["tags"].as_array().unwrap().len(), 1);
}
