//! The store's files removed under a running program.

use std::time::Duration;

use usercom_sink::emulator::Faults;

use super::{Rig, until};
use crate::support::tally::records;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_store_loses_nothing() {
    // The store's files are removed in mid-run, which is said within seconds, and the run is killed
    // after that: the next one continues where it was, nothing is lost or doubled.
    let sink = "preset = \"segment\"\n[sinks.crm.request]\nconcurrency = 4\n\
                [sinks.crm.buffer]\ntype = \"disk\"\n[sinks.crm.delivery]\nfold = false\n";
    let faults = Faults { latency_ms: 20, ..Faults::default() };
    let rig = Rig::new(records(1200, 40), faults, sink).await;
    let mut running = rig.start(&["--once"]);
    until("requests", Duration::from_secs(60), || rig.chaos.asked() >= 200).await;
    for file in ["usercom-sink.db", "usercom-sink.db-wal", "usercom-sink.db-shm"] {
        std::fs::remove_file(rig.place.path().join("data").join(file)).unwrap();
    }
    until("a word about it", Duration::from_secs(10), || {
        rig.stderr().contains("the store was removed while it was in use")
    })
    .await;
    assert!(!running.has_ended(), "{}", rig.stderr());
    running.kill();
    rig.finish(Duration::from_secs(120)).await;
    rig.tally().await.assert_exact();
    rig.account.close().await;
}
