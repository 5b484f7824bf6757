//! The sink inside another program: a stream made in code goes to User.com, or here to the local
//! emulator.
//!
//! ```text
//! cargo run --example embedded
//! ```

use std::error::Error;
use std::io::{Write, stdout};

use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use usercom_sink::ack::Ack;
use usercom_sink::buffer::Store;
use usercom_sink::config::sink::UsercomSink;
use usercom_sink::emulator::{EmulatorConfig, Faults, start};
use usercom_sink::record::Record;
use usercom_sink::sink::{OnAuthFailure, SinkContext, SinkFactory};
use usercom_sink::telemetry::Metrics;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let account = start(EmulatorConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        api_key: "key".into(),
        data: None,
        seed: None,
        faults: Faults::default(),
    })
    .await?;

    // Settings as the pipeline file would have them under `[sinks.crm]`.
    let settings: UsercomSink = serde_json::from_value(serde_json::json!({
        "inputs": ["code"],
        "endpoint": account.base_url(),
        "api_key": "key",
        "preset": "segment",
    }))?;
    let metrics = Metrics::default().sink("crm");
    let (sink, healthcheck) = settings
        .build(SinkContext {
            name: "crm".into(),
            store: Store::in_memory()?,
            metrics: metrics.clone(),
            on_auth_failure: OnAuthFailure::Abort,
            abort: CancellationToken::new(),
            input_drained: CancellationToken::new(),
        })
        .await?;
    healthcheck.await?;

    // Every record carries its own acknowledgement; the verdict comes when all is settled.
    let (told, mut verdicts) = tokio::sync::mpsc::channel(10);
    let records = (0..10).map(move |n| {
        let body = serde_json::json!({
            "type": "track", "userId": format!("u{}", n % 3), "event": "Counted",
            "properties": { "n": n }, "timestamp": "2026-01-01T00:00:00Z",
        });
        let told = told.clone();
        let ack = Ack::new(move |verdict| {
            told.try_send(verdict).ok();
        });
        Record::new(body.to_string()).with_ack(ack)
    });
    sink.run(futures::stream::iter(records).boxed()).await?;

    let mut delivered = 0;
    while let Some(verdict) = verdicts.recv().await {
        assert_eq!(verdict, usercom_sink::ack::Verdict::Delivered);
        delivered += 1;
    }
    let summary = metrics.summary();
    assert_eq!((delivered, summary.all_calls()), (10, 10));
    writeln!(stdout(), "{delivered} events delivered with {} requests", summary.requests)?;
    account.stop().await;
    Ok(())
}
