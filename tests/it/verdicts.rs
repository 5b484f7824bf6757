//! No path drops a record without a verdict: whatever the server does, and whenever the sink is
//! stopped, every record's source is told once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use usercom_sink::ack::{Ack, Verdict};
use usercom_sink::buffer::Store;
use usercom_sink::config::sink::UsercomSink;
use usercom_sink::emulator::Faults;
use usercom_sink::record::Record;
use usercom_sink::sink::{OnAuthFailure, SinkContext, SinkError, SinkFactory};
use usercom_sink::telemetry::Metrics;

use crate::support::{Account, KEY};

/// What a record is like.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Event,
    Profile,
    Page,
    /// Sent before under the same message id.
    Again,
    /// No rule wants it.
    Unwanted,
    /// It has no identity.
    Nobody,
    /// It is no JSON.
    Broken,
}

fn body(n: usize, shape: Shape) -> String {
    let user = format!("u{}", n % 7);
    let record = match shape {
        Shape::Event => {
            json!({ "type": "track", "userId": user, "event": "E", "messageId": n.to_string() })
        }
        Shape::Profile => json!({ "type": "identify", "userId": user, "traits": { "n": n } }),
        Shape::Page => {
            json!({ "type": "page", "userId": user, "properties": { "url": "https://a.b/c" } })
        }
        Shape::Again => {
            json!({ "type": "track", "userId": "u0", "event": "E", "messageId": "again" })
        }
        Shape::Unwanted => json!({ "level": "debug" }),
        Shape::Nobody => json!({ "type": "track", "event": "E" }),
        Shape::Broken => return "{".into(),
    };
    record.to_string()
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let shape = prop_oneof![
        6 => Just(Shape::Event),
        2 => Just(Shape::Profile),
        2 => Just(Shape::Page),
        1 => Just(Shape::Again),
        1 => Just(Shape::Unwanted),
        1 => Just(Shape::Nobody),
        1 => Just(Shape::Broken),
    ];
    proptest::collection::vec(shape, 1..120)
}

/// The verdicts of every record, by number.
type Told = Arc<Mutex<Vec<Vec<Verdict>>>>;

async fn run(shapes: &[Shape], buffer: &str, faults: Faults, stop_after: Option<u64>) -> Told {
    let account = Account::open(Faults::default()).await;
    let settings: UsercomSink = serde_json::from_value(json!({
        "inputs": ["test"],
        "endpoint": account.endpoint(),
        "api_key": KEY,
        "preset": "segment",
        "buffer": { "type": buffer },
        "request": { "timeout_secs": 1, "retry_max_duration_secs": 1 },
    }))
    .unwrap();
    let stop = CancellationToken::new();
    let context = SinkContext {
        name: "crm".into(),
        store: Store::in_memory().unwrap(),
        metrics: Metrics::default().sink("crm"),
        on_auth_failure: OnAuthFailure::Retry,
        abort: stop.clone(),
        input_drained: CancellationToken::new(),
    };
    let (sink, _) = settings.build(context).await.unwrap();
    let told: Told = Arc::new(Mutex::new(vec![Vec::new(); shapes.len()]));
    let records: Vec<Record> = shapes
        .iter()
        .enumerate()
        .map(|(n, shape)| {
            let told = Arc::clone(&told);
            let ack = Ack::new(move |verdict| told.lock().unwrap()[n].push(verdict));
            let mut record = Record::new(body(n, *shape)).with_ack(ack);
            if matches!(shape, Shape::Broken) {
                record.decode_error = Some("not valid JSON".into());
            }
            record
        })
        .collect();
    let stopper = async {
        // Whoever cannot even list its attributes is no User.com, and ends the sink.
        while account.admin("stats").await["routes"]["GET attributes/"] != 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        account.set_faults(&serde_json::to_value(&faults).unwrap()).await;
        match stop_after {
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            None => std::future::pending().await,
        }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let end = tokio::select! {
        end = sink.run(futures::stream::iter(records).boxed()) => end,
        () = stopper => unreachable!("it never ends"),
    };
    match end {
        Ok(()) => {}
        Err(SinkError::Aborted { .. }) => assert!(stop_after.is_some()),
        Err(error) => panic!("{error}"),
    }
    account.close().await;
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 8, ..ProptestConfig::default() })]

    #[test]
    fn every_record_gets_one_verdict(
        shapes in shapes(),
        disk in any::<bool>(),
        error_rate in 0.0..0.2f64,
        reset_rate in 0.0..0.1f64,
        stop_after in proptest::option::of(0u64..400),
    ) {
        // Each source is told exactly once what became of each record; a sink that ran to its end
        // has settled all of them, and says so truthfully.
        let faults = Faults {
            error_rate,
            error_codes: vec![400, 404, 500, 503],
            reset_rate,
            ..Faults::default()
        };
        let buffer = if disk { "disk" } else { "memory" };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let told = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), run(&shapes, buffer, faults, stop_after)).await
        });
        let told = told.expect("it ends");
        let told = told.lock().unwrap();
        for (n, (shape, verdicts)) in shapes.iter().zip(&*told).enumerate() {
            prop_assert_eq!(verdicts.len(), 1, "record {} {:?}: {:?}", n, shape, verdicts);
            let verdict = verdicts[0];
            if stop_after.is_none() {
                prop_assert_ne!(verdict, Verdict::Errored, "record {} {:?}", n, shape);
            }
            if !disk && verdict != Verdict::Errored {
                match shape {
                    Shape::Nobody | Shape::Broken => prop_assert_eq!(verdict, Verdict::Rejected),
                    Shape::Unwanted => prop_assert_eq!(verdict, Verdict::Delivered),
                    _ => {}
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_sinks_verdicts_do_not_matter_to_it() {
    // A record shared by two takers is delivered only if both say so.
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let record = Record::new(Value::Null.to_string())
        .with_ack(Ack::new(move |verdict| seen.lock().unwrap().push(verdict)));
    let other = record.clone();
    record.ack.settle(Verdict::Delivered);
    assert!(told.lock().unwrap().is_empty());
    other.ack.settle(Verdict::Rejected);
    assert_eq!(*told.lock().unwrap(), [Verdict::Rejected]);
}
