//! Untrusted ids in paths, and what an empty account would be sent.

use url::Url;
use usercom_sink::config::sink::UsersConfig;
use usercom_sink::deliver::Method;
use usercom_sink::usercom::dry_run;

use super::fake::*;

#[tokio::test]
async fn id_stays_one_path_segment() {
    // No id, however shaped, leads anywhere but to its own user once a URL parser has seen it.
    let base = Url::parse("https://acme.user.com/api/public/").unwrap();
    for (id, segment) in [
        ("a+b@c.d", "a%2Bb%40c.d"),
        ("ü", "%C3%BC"),
        ("a b?c=d#e%2F", "a%20b%3Fc%3Dd%23e%252F"),
        ("...", "..."),
        ("x;y:z&=", "x%3By%3Az%26%3D"),
    ] {
        let requests = dry_run(&[track(id, "e")], &UsersConfig::default()).await;
        let path = &requests[1].path;
        assert_eq!(*path, format!("users-by-id/{segment}/events/"));
        let url = base.join(path).unwrap();
        assert_eq!(url.path(), format!("/api/public/users-by-id/{segment}/events/"));
        assert_eq!(url.query(), None);
    }
}

proptest::proptest! {
    #[test]
    fn no_id_escapes_its_path_segment(id in "\\PC{1,40}|[./\\\\%?#a:@]{1,8}") {
        // Any id at all: the URL has our base, the expected number of segments, and decodes to it.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ops = [track(&id, "e"), company(&id, vec![standard("size", "1")])];
        let base = Url::parse("https://acme.user.com/api/public/").unwrap();
        for request in runtime.block_on(dry_run(&ops, &UsersConfig::default())) {
            let url = base.join(&request.path).unwrap();
            assert_eq!(url.host_str(), Some("acme.user.com"));
            let rest = url.path().strip_prefix("/api/public/").unwrap();
            assert_eq!(rest, request.path);
            assert_eq!(rest.matches('/').count(), request.route.matches('/').count());
            if request.route.contains("by-id") {
                let segment = rest.split('/').nth(1).unwrap();
                let decoded = percent_encoding::percent_decode_str(segment).decode_utf8().unwrap();
                assert_eq!(decoded, id);
            }
        }
    }
}

#[tokio::test]
async fn unsafe_id_is_addressed_by_remote_id() {
    // `.`, `..` and ids with slashes never reach a path: the upsert tells the number.
    for id in [".", "..", "../companies/1", "a/b c?x", "a\\b"] {
        let requests = dry_run(&[track(id, "e"), page(id)], &UsersConfig::default()).await;
        let paths: Vec<&str> = requests.iter().map(|request| request.path.as_str()).collect();
        assert_eq!(
            paths,
            ["users/update_or_create/", "events/", "users/1/", "site-views/"],
            "{id}"
        );
        let event: serde_json::Value =
            serde_json::from_slice(requests[1].body.as_ref().unwrap()).unwrap();
        assert_eq!(event["user_id"], 1);
    }
}

#[tokio::test]
async fn dry_run_shows_creations_but_not_catalogue_reads() {
    // What an empty account is sent for an identify and a group, in order.
    let ops = [
        identify("u1", vec![custom("plan", "1")]),
        company("g1", vec![custom("plan", "1")]),
        join("u1", "g1"),
    ];
    let requests = dry_run(&ops, &UsersConfig::default()).await;
    let sent: Vec<(Method, &str)> = requests.iter().map(|r| (r.method, r.path.as_str())).collect();
    assert_eq!(
        sent,
        [
            (Method::Post, "attributes/"),
            (Method::Post, "users/update_or_create/"),
            (Method::Post, "attributes/"),
            (Method::Put, "companies-by-id/g1/"),
            (Method::Post, "companies/"),
            (Method::Post, "companies/2/add_member/"),
        ]
    );
}
