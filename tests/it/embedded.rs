//! The sink inside another program: [`Sink::builder`].

use std::sync::{Arc, Mutex};

use futures::stream;
use serde_json::{Value, json};
use usercom_sink::Sink;
use usercom_sink::ack::{Ack, Verdict};
use usercom_sink::emulator::{EmulatorConfig, start};
use usercom_sink::record::Record;
use usercom_sink::sink::SinkBuildError;

async fn settings_error(settings: Value) -> String {
    match Sink::builder("crm", settings).build().await.err() {
        Some(SinkBuildError::Settings(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn event(n: usize) -> Record {
    Record::new(json!({ "type": "track", "userId": format!("u{n}"), "event": "E" }).to_string())
}

#[tokio::test]
async fn builder_with_bad_settings_names_each_fault_and_no_secret() {
    // Guarantees that an embedder reads the same faults as the user of a pipeline file, all at
    // once, and that the API key is in none of them.
    let text = settings_error(json!({
        "app": "acme", "api_key": "s3cret-key-value", "preset": "segment",
        "delivery": { "max_in_fligth": 1 }, "requets": {},
    }))
    .await;
    assert!(text.contains("max_in_flight") && text.contains("requets"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    assert!(settings_error(json!([])).await.contains("object"));
}

#[tokio::test]
async fn disk_buffer_without_data_dir_is_an_error() {
    // Guarantees that no record is acknowledged as durable by a store that lives in memory.
    let text = settings_error(json!({
        "app": "acme", "api_key": "k", "preset": "segment", "buffer": { "type": "disk" },
    }))
    .await;
    assert!(text.contains("data_dir"), "{text}");
}

#[tokio::test]
async fn each_record_gets_its_verdict_and_dead_letters_survive_the_sink() {
    // Guarantees what the sink promises an embedder: one verdict a record, a summary of all, and
    // dead letters and message ids in the data_dir that the next sink of that name finds.
    let account = start(EmulatorConfig::local("key")).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let build = || {
        let settings =
            json!({ "endpoint": account.base_url(), "api_key": "key", "preset": "segment" });
        Sink::builder("crm", settings).data_dir(dir.path()).build()
    };
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let with_ack = |record: Record| {
        let verdicts = Arc::clone(&verdicts);
        record.with_ack(Ack::new(move |verdict| verdicts.lock().unwrap().push(verdict)))
    };
    let mut sink = build().await.unwrap();
    sink.healthcheck().await.unwrap();
    let unusable = Record::new(r#"{ "type": "track", "userId": "u1" }"#);
    let records = [event(1), event(2), unusable].map(with_ack);
    let summary = sink.run(stream::iter(records)).await.unwrap();
    assert_eq!((summary.delivered, summary.all_dead_letters()), (2, 1), "{summary:?}");
    verdicts.lock().unwrap().sort();
    assert_eq!(
        *verdicts.lock().unwrap(),
        [Verdict::Delivered, Verdict::Delivered, Verdict::Rejected]
    );
    // The folder is free again, and what it holds is there.
    let summary = build().await.unwrap().run(stream::iter([event(3)])).await.unwrap();
    assert_eq!(summary.delivered, 1);
    let store =
        usercom_sink::buffer::Store::open(dir.path(), usercom_sink::buffer::Access::ReadOnly)
            .unwrap();
    assert_eq!(store.count_dead_letters("crm").await.unwrap().len(), 1);
    account.stop().await;
}

#[test]
fn documentation_shows_only_what_an_embedder_needs() {
    // Every public module of the crate root but the emulator is left out of the documentation: it
    // is public for tests and benches only. What an embedder needs is re-exported.
    let root = include_str!("../../src/lib.rs");
    let lines: Vec<&str> = root.lines().collect();
    let shown: Vec<_> = (1..lines.len())
        .filter(|n| lines[*n].starts_with("pub mod") && lines[*n - 1] != "#[doc(hidden)]")
        .map(|n| lines[n])
        .collect();
    assert_eq!(shown, ["pub mod emulator;"]);
    assert!(root.contains("pub use pipeline::{Sink, SinkBuilder};"));
}
