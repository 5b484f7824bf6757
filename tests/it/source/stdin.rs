//! Standard input.

use usercom_sink::config::source::{Decoding, StdinSourceConfig as StdinSettings};
use usercom_sink::source::stdin::StdinSource;

use super::{Run, shown};

fn stdin_settings() -> StdinSettings {
    StdinSettings {
        decoding: Decoding::default(),
        multiline: None,
        timezone: None,
        max_line_bytes: 100,
    }
}

#[tokio::test]
async fn standard_input_is_read_to_its_end() {
    // Every line is a record without an origin, faults name their line, a last line without a
    // newline counts, and the source ends after the last verdict.
    let input: &[u8] = b"{\"a\":1}\r\n\nnope\n[2]";
    let source = StdinSource::of(input, &stdin_settings()).unwrap();
    let mut run = Run::start(Box::new(source), 10);
    let mut records = Vec::new();
    while let Some(record) = run.next().await {
        assert!(record.origin.is_none());
        records.push(record);
    }
    let got: Vec<_> = records.iter().map(shown).collect();
    assert_eq!((got[0].as_str(), got[2].as_str()), (r#"{"a":1}"#, "2"));
    assert!(got[1].starts_with("fault: stdin:3: not valid JSON"), "{}", got[1]);
    let last = records.pop();
    drop(records);
    assert!(run.task.try_join_next().is_none(), "a verdict is missing");
    drop(last);
    run.end().await.unwrap();
}

#[tokio::test]
async fn standard_input_can_be_stopped() {
    // A stop ends the source though the input stays open and silent.
    let (_writer, input) = tokio::io::duplex(64);
    let source = StdinSource::of(input, &stdin_settings()).unwrap();
    let run = Run::start(Box::new(source), 1);
    run.stop().await;
}
