//! Every record gets exactly one verdict, whatever the server answers and whenever the sink is
//! aborted.

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
use usercom_sink::sink::{Destination, OnAuthFailure, SinkContext, SinkError, SinkFactory};
use usercom_sink::telemetry::Metrics;

use crate::support::{EmulatorAccount, KEY};

/// The kind of a record.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Event,
    Profile,
    Page,
    /// With a message id that other records have, too.
    Duplicate,
    /// Matched by no rule.
    Unmatched,
    /// Without user id and anonymous id.
    WithoutIdentity,
    /// Not JSON.
    Invalid,
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
        Shape::Duplicate => {
            json!({ "type": "track", "userId": "u0", "event": "E", "messageId": "duplicate" })
        }
        Shape::Unmatched => json!({ "level": "debug" }),
        Shape::WithoutIdentity => json!({ "type": "track", "event": "E" }),
        Shape::Invalid => return "{".into(),
    };
    record.to_string()
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let shape = prop_oneof![
        6 => Just(Shape::Event),
        2 => Just(Shape::Profile),
        2 => Just(Shape::Page),
        1 => Just(Shape::Duplicate),
        1 => Just(Shape::Unmatched),
        1 => Just(Shape::WithoutIdentity),
        1 => Just(Shape::Invalid),
    ];
    proptest::collection::vec(shape, 1..120)
}

/// The verdicts of every record, by index.
type RecordedVerdicts = Arc<Mutex<Vec<Vec<Verdict>>>>;

async fn run(
    shapes: &[Shape],
    buffer: &str,
    faults: Faults,
    abort_after: Option<u64>,
) -> RecordedVerdicts {
    let account = EmulatorAccount::open(Faults::default()).await;
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
        destination: Destination::Account,
        on_auth_failure: OnAuthFailure::Retry,
        leave: CancellationToken::new(),
        abort: stop.clone(),
        input_drained: CancellationToken::new(),
    };
    let (sink, _) = settings.build(context).await.unwrap();
    let verdicts_of: RecordedVerdicts = Arc::new(Mutex::new(vec![Vec::new(); shapes.len()]));
    let records: Vec<Record> = shapes
        .iter()
        .enumerate()
        .map(|(n, shape)| {
            let verdicts_of = Arc::clone(&verdicts_of);
            let ack = Ack::new(move |verdict| verdicts_of.lock().unwrap()[n].push(verdict));
            let mut record = Record::new(body(n, *shape)).with_ack(ack);
            if matches!(shape, Shape::Invalid) {
                record.decode_error = Some("not valid JSON".into());
            }
            record
        })
        .collect();
    let aborter = async {
        // The sink ends if it cannot list the attributes, so faults begin after that.
        while account.admin("stats").await["routes"]["GET attributes/"] != 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        account.set_faults(&serde_json::to_value(&faults).unwrap()).await;
        match abort_after {
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            None => std::future::pending().await,
        }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let end = tokio::select! {
        end = sink.run(futures::stream::iter(records).boxed()) => end,
        () = aborter => unreachable!("it never ends"),
    };
    match end {
        Ok(()) => {}
        Err(SinkError::Aborted { .. }) => assert!(abort_after.is_some()),
        Err(error) => panic!("{error}"),
    }
    account.close().await;
    verdicts_of
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 8, ..ProptestConfig::default() })]

    #[test]
    fn every_record_gets_one_verdict(
        shapes in shapes(),
        disk in any::<bool>(),
        error_rate in 0.0..0.2f64,
        reset_rate in 0.0..0.1f64,
        abort_after in proptest::option::of(0u64..400),
    ) {
        // Each record gets exactly one verdict. A sink that was not aborted has settled all records,
        // and reports the right verdict for each.
        let faults = Faults {
            error_rate,
            error_codes: vec![400, 404, 500, 503],
            reset_rate,
            ..Faults::default()
        };
        let buffer = if disk { "disk" } else { "memory" };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let verdicts_of = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), run(&shapes, buffer, faults, abort_after)).await
        });
        let verdicts_of = verdicts_of.expect("it ends");
        let verdicts_of = verdicts_of.lock().unwrap();
        for (n, (shape, verdicts)) in shapes.iter().zip(&*verdicts_of).enumerate() {
            prop_assert_eq!(verdicts.len(), 1, "record {} {:?}: {:?}", n, shape, verdicts);
            let verdict = verdicts[0];
            if abort_after.is_none() {
                prop_assert_ne!(verdict, Verdict::Errored, "record {} {:?}", n, shape);
            }
            if !disk && verdict != Verdict::Errored {
                match shape {
                    Shape::WithoutIdentity | Shape::Invalid => prop_assert_eq!(verdict, Verdict::Rejected),
                    Shape::Unmatched => prop_assert_eq!(verdict, Verdict::Delivered),
                    _ => {}
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_of_two_sinks_reports_the_worst_verdict() {
    // A record that goes to two sinks is delivered only if both deliver it.
    let verdicts_of = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&verdicts_of);
    let record = Record::new(Value::Null.to_string())
        .with_ack(Ack::new(move |verdict| seen.lock().unwrap().push(verdict)));
    let other = record.clone();
    record.ack.settle(Verdict::Delivered);
    assert!(verdicts_of.lock().unwrap().is_empty());
    other.ack.settle(Verdict::Rejected);
    assert_eq!(*verdicts_of.lock().unwrap(), [Verdict::Rejected]);
}
