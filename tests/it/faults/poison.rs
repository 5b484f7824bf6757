//! Records that User.com refuses.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use usercom_sink::emulator::Faults;

use crate::support::load::{Load, Tally};
use crate::support::{Account, Place, json_of, usercom_sink};

/// The mapping that lets a misspelt address through, and the one that mends it.
fn rules(mend: &str) -> String {
    format!(
        r#"preset = "segment"
[[sinks.crm.mapping]]
name = "newsletter"
when = {{ ".kind" = "newsletter" }}
call = "identify"
[sinks.crm.mapping.fields]
user_id = ".user"
message_id = ".id"
"traits.email" = {{ path = ".email"{mend} }}
"#
    )
}

async fn run(load: Load) {
    let account = Account::open(Faults::default()).await;
    let place = Place::new();
    let mut lines = String::new();
    let (mut poisoned, mut users) = (Vec::new(), BTreeSet::new());
    for n in 0..load.records {
        lines += &format!("{}\n", load.record(n));
        if n % 100 == 50 {
            let user = format!("user-{}", n % load.users);
            poisoned.push(format!("poison-{n}"));
            users.insert(user.clone());
            let email = format!("{user} at example.com");
            let record = json!({ "kind": "newsletter", "user": user, "id": format!("poison-{n}"), "email": email });
            lines += &format!("{record}\n");
        }
    }
    place.write("records.ndjson", &lines);
    let config = place.pipeline(&account.endpoint(), &rules(""));
    let summary = json_of(&place.run_once(&config, &[]), 0);
    let letters = place.dead_letters(&config);
    let mut refused: Vec<_> =
        letters.iter().map(|letter| letter["record"]["id"].as_str().unwrap().to_owned()).collect();
    refused.sort();
    poisoned.sort();
    assert_eq!(refused, poisoned, "{summary}");
    for letter in &letters {
        assert_eq!((&letter["status"], &letter["attempts"]), (&json!(400), &json!(1)), "{letter}");
        assert!(letter["response"].as_str().unwrap().contains("email"), "{letter}");
    }
    assert_eq!(load.tally(&account).await, Tally::WHOLE);

    // The cause is mended in the mapping; one letter stays beyond help.
    place.pipeline(&account.endpoint(), &rules(r#", replace = [[" at ", "@"]]"#));
    let replay = usercom_sink(&["dead-letters", "replay", "-c", config.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&replay.stdout).into_owned();
    assert!(
        replay.status.success() && told.contains(&format!("{} settled, 0 kept", poisoned.len())),
        "{told}"
    );
    assert!(place.dead_letters(&config).is_empty());
    let with_address = account.all("users/").await;
    let with_address = with_address.iter().filter(|user| user["email"].is_string()).count();
    assert_eq!(with_address, users.len());
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_records_harm_nobody() {
    // Exactly the refused records are dead letters; everyone else's arrive, those of the same users
    // too; and a replay delivers them once the cause is mended.
    tokio::time::timeout(Duration::from_secs(120), run(Load { records: 1_000, users: 97 }))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak of half a minute"]
async fn soak_poison() {
    // One record in a hundred of 10,000 is refused, and only those are.
    run(Load { records: 10_000, users: 97 }).await;
}
