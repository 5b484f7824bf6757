//! Searches and adoptions that are answered otherwise: nothing is rejected, overwritten or guessed.

use serde_json::{Value, json};
use usercom_sink::config::sink::MatchConflict;
use usercom_sink::schedule::KeyKind;

use super::{MAIL, SEARCH, account, executor, identify, run, track};

#[tokio::test(start_paused = true)]
async fn search_without_an_answer_creates_the_user_and_is_reported_once() {
    // A search that is closed to the key, or is not the API's, makes no dead letter: users are
    // created, it is said once, and after some time searches are tried again.
    for (status, text) in [
        (405, r#"{"detail":"Method not allowed."}"#),
        (501, ""),
        (403, r#"{"detail":"forbidden"}"#),
        (404, "no such page"),
        (410, r#"{"detail":"gone"}"#),
        (200, "OK"),
        (200, ""),
        (404, "<html>Not found</html>"),
        (302, ""),
    ] {
        for policy in [MatchConflict::Create, MatchConflict::DeadLetter, MatchConflict::Use] {
            let seeds = ["a@x.y", "b@x.y", "c@x.y"].map(|email| json!({"email": email}));
            let account = account(&seeds);
            account.0.lock().unwrap().search_answer = Some((status, text));
            let usercom = executor(&account, policy);
            run(&usercom, &identify("u1", &[(KeyKind::Email, "a@x.y")])).await.unwrap();
            account.log();
            run(&usercom, &identify("u2", &[(KeyKind::Email, "b@x.y")])).await.unwrap();
            run(&usercom, &track("u3", &[(KeyKind::Email, "c@x.y")])).await.unwrap();
            assert!(!account.log().contains(&SEARCH.to_owned()), "{status} {text:?}");
            assert_eq!(account.users(), 6);
            assert_eq!(account.0.lock().unwrap().unanswered, ["email"]);
            tokio::time::advance(std::time::Duration::from_secs(601)).await;
            account.0.lock().unwrap().search_answer = None;
            run(&usercom, &identify("u4", &[(KeyKind::Email, "new@x.y")])).await.unwrap();
            assert!(account.log().contains(&SEARCH.to_owned()), "{status} {text:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn key_that_is_not_of_the_right_form_finds_no_record() {
    // A key that User.com refuses concerns one user: the next one is looked up as before.
    for status in [400, 422, 404] {
        let account = account(&[json!({"email": "ann@x.y"})]);
        account.0.lock().unwrap().search_answer = Some((status, r#"{"detail":"no"}"#));
        let usercom = executor(&account, MatchConflict::Create);
        run(&usercom, &identify("u1", &[(KeyKind::Email, "odd@x.y")])).await.unwrap();
        account.0.lock().unwrap().search_answer = None;
        run(&usercom, &identify("u2", &[MAIL])).await.unwrap();
        assert_eq!(account.own_id(1), "u2");
        assert!(account.0.lock().unwrap().unanswered.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn record_that_a_search_shows_without_the_key_is_not_adopted_unseen() {
    // A search that ignores its parameter, or shows little of each record, leads to no record of
    // another person: what it leaves out is read from the record.
    let seeds = [json!({"email": "bob@x.y"}), json!({"email": "ann@x.y"})];
    for (answer, found) in [
        (r#"[{"id":1},{"id":2}]"#, Some(2)),
        (r#"{"count":1,"results":[{"id":1}]}"#, None),
        (r#"{"id":"2"}"#, Some(2)),
        (r#"[{"id":1,"email":"bob@x.y","custom_id":null}]"#, None),
        (r#"[{"id":77}]"#, None),
    ] {
        let account = account(&seeds);
        account.0.lock().unwrap().search_answer = Some((200, answer));
        run(&executor(&account, MatchConflict::Create), &identify("u1", &[MAIL])).await.unwrap();
        assert_eq!(account.own_id(1), Value::Null, "{answer}");
        assert_eq!(account.own_id(found.unwrap_or(3)), "u1", "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn record_that_cannot_be_given_an_id_stays_and_the_user_is_created() {
    // An account that refuses the id for a record that was found loses no call.
    for status in [400, 403, 405, 501] {
        let account = account(&[json!({"email": "ann@x.y"})]);
        account.0.lock().unwrap().no_adoption = Some(status);
        let usercom = executor(&account, MatchConflict::Create);
        run(&usercom, &identify("u1", &[MAIL])).await.unwrap();
        run(&usercom, &track("u2", &[MAIL])).await.unwrap();
        assert_eq!((account.own_id(1), account.users()), (Value::Null, 3), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn user_key_of_another_record_is_never_written() {
    // The key of a browser that leads to another record stays there (asserted in the account): in
    // the first write, in later ones, and after a restart.
    const COOKIE: (KeyKind, &str) = (KeyKind::UserKey, "cookie");
    let of_other = json!({"user_key": "cookie", "custom_id": "u9"});
    let of_visitor = json!({"user_key": "cookie"});
    let own = json!({"custom_id": "u1"});
    let by_mail = json!({"email": "ann@x.y"});
    for (seeds, first) in [
        (vec![of_other.clone()], identify("u1", &[COOKIE])),
        (vec![of_other.clone()], track("u1", &[COOKIE])),
        (vec![of_visitor.clone(), own.clone()], identify("u1", &[COOKIE])),
        (vec![of_visitor.clone(), own], track("u1", &[COOKIE])),
        (vec![of_other, by_mail.clone()], identify("u1", &[COOKIE, MAIL])),
        (vec![of_visitor, by_mail], identify("u1", &[MAIL])),
    ] {
        let account = account(&seeds);
        let usercom = executor(&account, MatchConflict::Create);
        run(&usercom, &first).await.unwrap();
        run(&usercom, &identify("u1", &[COOKIE, (KeyKind::Phone, "+48600100200")])).await.unwrap();
        let next = executor(&account, MatchConflict::Create);
        let rows = usercom.take_changes(usize::MAX);
        next.restore(rows.into_iter().filter_map(|(key, row)| Some((key, row?))));
        run(&next, &identify("u1", &[COOKIE, (KeyKind::Phone, "+48600100201")])).await.unwrap();
        let people = account.0.lock().unwrap();
        let phones: Vec<&str> =
            people.users.iter().filter_map(|user| user["phone_number"].as_str()).collect();
        assert!(phones.contains(&"+48600100201"), "{phones:?}");
    }
}
