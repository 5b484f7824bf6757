//! Records User.com will never take, among others that it does.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use usercom_sink::emulator::Faults;

use super::Rig;
use crate::support::tally::records;
use crate::support::{json_of, usercom_sink};

const SINK: &str = r#"preset = "segment"
[sinks.crm.request]
concurrency = 32
[sinks.crm.buffer]
type = "disk"
"#;

/// Poisons every hundredth record, beginning with the 42nd. Returns their numbers.
fn poison(records: &mut [Value]) -> BTreeSet<usize> {
    let chosen: BTreeSet<usize> = (42..records.len())
        .step_by(100)
        .map(|n| (n..).find(|n| records[*n]["type"] == "track").unwrap())
        .collect();
    for n in &chosen {
        records[*n]["properties"]["note"] = "poison".into();
    }
    chosen
}

async fn poisoned(count: usize, users: usize) {
    let mut records = records(count, users);
    let chosen = poison(&mut records);
    let rig = Rig::new(records, Faults::default(), SINK).await;
    rig.chaos.refuse("poison");
    rig.finish(Duration::from_secs(120)).await;
    assert_eq!(rig.dead(), chosen);
    for letter in rig.letters() {
        assert_eq!(letter["status"], 400, "{letter}");
        // A look at the user comes before the event at times, a repeat never does any good.
        assert!((1..=3).contains(&letter["attempts"].as_u64().unwrap()), "{letter}");
    }
    let tally = rig.tally().await;
    println!("poison: {tally}");
    tally.assert_exact();

    rig.chaos.refuse("");
    let config = rig.config.to_str().unwrap();
    let replayed = usercom_sink(&["dead-letters", "replay", "-c", config, "--format", "json"]);
    let replayed = json_of(&replayed, 0);
    assert_eq!(replayed["delivered"], chosen.len(), "{replayed}");
    assert_eq!(rig.dead(), BTreeSet::new());
    // The replayed ones come late: each is there once, and the others' order is what it was.
    let tally = rig.tally().await;
    println!("poison, replayed: {tally}");
    assert!(tally.lost.is_empty() && tally.doubled == 0, "{tally}");
    assert!(tally.disordered.iter().all(|n| chosen.contains(n)), "{tally}");
    rig.account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_records_become_dead_letters_and_replay() {
    // Exactly the refused records are in the dead letters, everyone else's arrive once and in
    // order, and a replay delivers them once the cause is mended.
    poisoned(600, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn soak_poison() {
    // As above, with 10,000 records.
    poisoned(10_000, 200).await;
}
