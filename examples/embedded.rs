//! The sink inside another program: a stream made in code goes to User.com, here to the local
//! emulator.
//!
//! ```text
//! cargo run --example embedded
//! ```

use std::error::Error;
use std::io::{Write, stdout};

use futures::stream;
use serde_json::json;
use usercom_sink::emulator::{EmulatorConfig, start};
use usercom_sink::{Record, Sink};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let account = start(EmulatorConfig::local("key")).await?;
    // The keys of `[sinks.NAME]` in a pipeline file.
    let settings = json!({ "endpoint": account.base_url(), "api_key": "key", "preset": "segment" });
    let mut sink = Sink::builder("crm", settings).build().await?;
    sink.healthcheck().await?;
    let records = (0..10).map(|n| {
        let call = json!({ "type": "track", "userId": format!("u{}", n % 3), "event": "Counted" });
        Record::new(call.to_string())
    });
    let done = sink.run(stream::iter(records)).await?;
    assert_eq!(done.delivered, 10);
    writeln!(stdout(), "{} events delivered with {} requests", done.delivered, done.requests)?;
    account.stop().await;
    Ok(())
}
