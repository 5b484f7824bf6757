use super::*;
use crate::config::source::{Codec, DecodingStep, MultilineMode};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

fn step(codec: Codec) -> DecodingStep {
    DecodingStep { codec, ..DecodingStep::default() }
}

fn steps(steps: Vec<DecodingStep>) -> Decoder {
    let mut steps = steps.into_iter();
    let first = steps.next().unwrap();
    Decoder::new(&Decoding { first, then: steps.collect() }).unwrap()
}

fn of(codec: Codec) -> Decoder {
    Decoder::new(&step(codec).into()).unwrap()
}

fn lines(decoder: &Decoder, text: &[u8]) -> Vec<Decoded> {
    decoder.lines(&Bytes::copy_from_slice(text))
}

fn body(decoded: &Decoded) -> Value {
    assert_eq!(decoded.fault, None);
    serde_json::from_slice(&decoded.body).unwrap()
}

fn meta(decoded: &Decoded) -> Value {
    serde_json::from_slice(decoded.meta.as_ref().unwrap()).unwrap()
}

fn why(decoded: &Decoded) -> &str {
    decoded.fault.as_deref().unwrap()
}

#[test]
fn text_codec_replaces_invalid_utf8() {
    // The text codec accepts any bytes, and an empty line is an empty message.
    let decoder = of(Codec::Text);
    let one = |line: &'static [u8]| body(&decoder.message(&Bytes::from_static(line))[0]);
    assert_eq!(one(b"a\"\xff\tb\r"), json!({"message": "a\"\u{fffd}\tb"}));
    assert_eq!(one(b""), json!({"message": ""}));
}

#[test]
fn decoding_step_reads_result_of_previous_step() {
    // The second step's result is the record; the first step's result is under its name in
    // `%decoded`.
    let json = DecodingStep { from: Some(".message".into()), ..step(Codec::Json) };
    let decoder = steps(vec![step(Codec::Cri), json]);
    let time = "2024-05-21T10:11:12.5Z";
    let text = format!(
        "{time} stdout P {{\"a\":\n{time} stderr F oops\n{time} stdout F 1}}\n{time} stdout F \
         [1,2]\n"
    );
    let got = lines(&decoder, text.as_bytes());
    assert_eq!(
        why(&got[0]),
        "step 2 (`json` from `.message`): not valid JSON at column 1: expected value"
    );
    assert_eq!(got[0].body, format!("{time} stderr F oops"));
    assert_eq!(body(&got[1]), json!({"a": 1}));
    assert_eq!(meta(&got[1])["decoded"]["cri"]["stream"], "stdout");
    assert_eq!(meta(&got[1])["decoded"]["cri"]["time"], time);
    assert_eq!((got[1].line, got[1].lines, got[1].part), (0, 3, 0));
    assert_eq!((body(&got[2]), body(&got[3])), (json!(1), json!(2)));
    assert_eq!((got[2].end, got[2].part), (got[3].end, got[3].part - 1));
}

#[test]
fn step_result_is_inserted_at_its_target() {
    // With `into` the record of the step before is kept and extended; names do not collide.
    let inner = DecodingStep {
        from: Some(".inner".into()),
        into: Some(".data.parsed".into()),
        ..step(Codec::Json)
    };
    let last = DecodingStep {
        from: Some(".data.parsed.kv".into()),
        into: Some(".kv".into()),
        ..step(Codec::Logfmt)
    };
    let decoder = steps(vec![step(Codec::Json), inner, last]);
    let got = lines(&decoder, br#"{"n":1.0,"inner":"{\"kv\":\"a=1\"}"}"#);
    let expected =
        r#"{"n":1.0,"inner":"{\"kv\":\"a=1\"}","data":{"parsed":{"kv":"a=1"}},"kv":{"a":"1"}}"#;
    assert_eq!(got[0].body, expected);
    let meta = meta(&got[0]);
    assert_eq!(meta["decoded"]["json"]["inner"], r#"{"kv":"a=1"}"#);
    assert_eq!(meta["decoded"]["json_2"]["data"]["parsed"]["kv"], "a=1");
}

#[test]
fn missing_input_error_names_step_and_path() {
    // Where there is nothing to read, or not a string, the error says which step needed what.
    let json = DecodingStep { from: Some(".log".into()), ..step(Codec::Logfmt) };
    let decoder = steps(vec![step(Codec::Json), json]);
    let got = lines(&decoder, b"{\"a\":1}\n{\"log\":5}\n{\"log\":{}}\n");
    assert!(why(&got[0]).starts_with("step 2 (`logfmt` from `.log`): there is nothing"), "{got:?}");
    assert!(why(&got[1]).contains("no text") && why(&got[2]).contains("no text"), "{got:?}");
}

#[test]
fn json_inside_syslog_is_decoded() {
    // JSON with a prefix is decoded by two steps, and the prefix stays available.
    let decoder = steps(vec![step(Codec::Syslog), step(Codec::Json)]);
    let got = lines(&decoder, b"<13>1 2024-05-21T10:11:12Z web app - - - {\"a\":1}\n");
    assert_eq!(body(&got[0]), json!({"a": 1}));
    assert_eq!(meta(&got[0])["decoded"]["syslog"]["hostname"], "web");
}

#[test]
fn utf16_lines_are_read_after_any_byte_order_mark() {
    // Either byte order, CRLF, a start in the middle of the file: lines are the strings, offsets
    // are bytes.
    for big in [true, false] {
        let encode = |text: &str| -> Vec<u8> {
            let units = text.encode_utf16();
            units.flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
        };
        let settings = DecodingStep { charset: Some("utf-16".into()), ..step(Codec::Csv) };
        let decoder = Decoder::new(&settings.into()).unwrap();
        let text = encode("\u{feff}id,näme\r\n1,ż\u{0a0a}\r\n2,b\n");
        let got = lines(&decoder, &text);
        assert_eq!(body(&got[0]), json!({"id": "1", "näme": "ż\u{0a0a}"}));
        assert_eq!((got[0].start, got[0].end), (20, 32));
        let mut amid = decoder.clone();
        assert!(amid.awaits_beginning() && !amid.learn_beginning(&text[..4].to_vec().into(), 100));
        assert!(amid.learn_beginning(&text[..22].to_vec().into(), 100) && !amid.awaits_beginning());
        let mut splitter = LineSplitter::new(32, 100).separated_by(amid.separator());
        splitter.feed(text[32..].to_vec().into());
        let mut out = Vec::new();
        amid.feed(splitter.next_line().unwrap(), &mut out);
        assert_eq!(body(&out[0]), json!({"id": "2", "näme": "b"}));
        assert_eq!(splitter.next_line(), None);
    }
}

#[test]
fn time_limit_ends_groups_but_not_csv_rows() {
    // A group's short time limit does not turn an open row into a decode error.
    let settings = MultilineSettings {
        start_pattern: "^s".into(),
        condition_pattern: "^s".into(),
        mode: MultilineMode::HaltBefore,
        timeout_ms: 10,
    };
    let csv = DecodingStep { columns: Some(vec!["a".into()]), ..step(Codec::Csv) };
    let mut decoder =
        Decoder::new(&csv.into()).unwrap().with_multiline(Some(&settings), 100).unwrap();
    let mut out = Vec::new();
    for (n, text) in (0..).zip(["\"open", "s1"]) {
        let content = Content::Whole(Bytes::from_static(text.as_bytes()));
        decoder.feed(Line { content, start: n * 10, end: n * 10 + 10 }, &mut out);
    }
    assert_eq!(decoder.flush_after(), Some(Duration::from_millis(10)));
    decoder.flush(Flush::Timeout, &mut out);
    assert_eq!((out.len(), decoder.flush_after()), (0, Some(INCOMPLETE_AFTER)));
    decoder.flush(Flush::Timeout, &mut out);
    assert_eq!((out.len(), decoder.flush_after(), decoder.waiting_from()), (1, None, Some(0)));
    assert!(out[0].fault.is_some());
}

#[test]
fn message_of_several_rows_is_several_records() {
    // The rows of one message are its parts, numbered over the message.
    let csv = DecodingStep { columns: Some(vec!["a".into()]), ..step(Codec::Csv) };
    let got = Decoder::new(&csv.into()).unwrap().message(&Bytes::from_static(b"1\n\"2\n3\"\n4"));
    let parts: Vec<_> =
        got.iter().map(|decoded| (body(decoded)["a"].clone(), decoded.part)).collect();
    assert_eq!(parts, [(json!("1"), 0), (json!("2\n3"), 1), (json!("4"), 2)]);
}

/// One decoder of every kind, with several steps and with joined lines.
fn every_decoder() -> Vec<Decoder> {
    let with = |codec| match codec {
        Codec::Regex => DecodingStep {
            pattern: Some("^(?<first>[a-z]+)(?: (?<message>.*))?".into()),
            ..step(codec)
        },
        Codec::Csv => {
            DecodingStep { columns: Some(vec!["a".into(), "message".into()]), ..step(codec) }
        }
        codec => step(codec),
    };
    let codecs = [
        Codec::Json,
        Codec::Text,
        Codec::Csv,
        Codec::Logfmt,
        Codec::Regex,
        Codec::Syslog,
        Codec::Cri,
        Codec::Docker,
    ];
    let multiline = MultilineSettings {
        start_pattern: "^a".into(),
        condition_pattern: "b$".into(),
        mode: MultilineMode::ContinuePast,
        timeout_ms: 1,
    };
    let mut all = vec![of(Codec::Csv)];
    for first in codecs {
        all.push(steps(vec![with(first)]));
        all.push(steps(vec![with(first)]).with_multiline(Some(&multiline), 50).unwrap());
        for charset in ["utf-16", "utf-16be", "latin1"] {
            all.push(steps(vec![DecodingStep { charset: Some(charset.into()), ..with(first) }]));
        }
        for second in codecs {
            all.push(steps(vec![with(first), with(second)]));
            let into = DecodingStep { into: Some(".a.b".into()), ..with(second) };
            all.push(steps(vec![with(first), into]));
        }
    }
    all
}

fn some_line() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![
        4 => prop::sample::select(b"ab=\"\\, {}[]:1\t\r<>".to_vec()),
        1 => any::<u8>()
    ];
    let time = "2024-05-21T10:11:12Z";
    prop_oneof![
        3 => proptest::collection::vec(bytes, 0..40),
        1 => Just(format!("{time} stdout P {{\"message\":").into_bytes()),
        1 => Just(format!("{time} stdout F \"a=1\"}}").into_bytes()),
        1 => Just(format!("<13>{time} host app[1]: {{\"message\":\"a\"}}").into_bytes()),
        1 => Just(br#"{"log":"a b\n","stream":"stderr","message":"[{}, 1]"}"#.to_vec()),
        1 => Just(br#"{"log":"[1,2","stream":"stdout"}"#.to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_codec_yields_json_or_a_reason(lines in proptest::collection::vec(some_line(), 1..5)) {
        // Whatever the bytes and the steps: nothing panics, every result is JSON or has a reason,
        // positions grow, and held lines are not after yielded ones.
        check_every_decoder(&lines)?;
    }
}

#[test]
fn parts_of_two_streams_within_an_open_quote_keep_their_positions() {
    // A step that joins the lines of two streams may yield an earlier start after a later one; a
    // CSV row that contains both covers the lines of both.
    let lines = [
        &b"\""[..],
        br#"{"log":"[1,2","stream":"stdout"}"#,
        br#"{"log":"a b\n","stream":"stderr","message":"[{}, 1]"}"#,
    ];
    check_every_decoder(&lines.map(<[u8]>::to_vec)).unwrap();
}

fn check_every_decoder(lines: &[Vec<u8>]) -> Result<(), TestCaseError> {
    for decoder in every_decoder() {
        let mut feeding = decoder.clone();
        let mut out = Vec::new();
        let mut start = 0;
        for line in lines {
            let end = start + line.len() as u64 + 1;
            let content = Content::Whole(Bytes::from(line.clone()));
            feeding.feed(Line { content, start, end }, &mut out);
            prop_assert!(feeding.waiting_from().is_none_or(|from| from <= start));
            start = end;
        }
        feeding.flush(Flush::Timeout, &mut out);
        feeding.flush(Flush::EndOfStream, &mut out);
        feeding.flush(Flush::NewGeneration, &mut out);
        prop_assert_eq!((feeding.waiting_from(), feeding.flush_after()), (None, None));
        let message = Bytes::from(lines.join(&b'\n'));
        let mut last = None;
        for decoded in &out {
            prop_assert!(Some((decoded.end, decoded.part)) > last, "positions grow");
            prop_assert!(decoded.start < decoded.end && decoded.end <= start);
            prop_assert!(decoded.line + decoded.lines <= lines.len() as u64);
            last = Some((decoded.end, decoded.part));
        }
        for decoded in out.into_iter().chain(decoder.message(&message)) {
            match decoded.fault {
                None => {
                    let value =
                        serde_json::from_slice::<&serde_json::value::RawValue>(&decoded.body);
                    prop_assert!(value.is_ok(), "{decoder:?} gave {:?}", decoded.body);
                }
                Some(why) => prop_assert!(!why.is_empty()),
            }
            if let Some(meta) = decoded.meta {
                prop_assert!(serde_json::from_slice::<Value>(&meta).is_ok(), "{meta:?}");
            }
        }
    }
    Ok(())
}
