//! What is in an event is in the record, and bad events harm no other.

use std::path::Path;

use proptest::prelude::*;
use prost::Message;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use usercom_sink::record::AckOn;
use usercom_sink::source::vector::generated::event::{
    Metric, OutputId, Trace, ValueArray, ValueMap,
};
use usercom_sink::source::vector::generated::vector::HealthCheckRequest;
use usercom_sink::source::vector::{DecodedEvent, EventKind};

use super::*;

/// Reads an event as it stands on the wire.
fn decode(event: &EventWrapper) -> DecodedEvent {
    usercom_sink::source::vector::decode(&event.encode_to_vec())
}

fn body(decoded: &DecodedEvent) -> Json {
    serde_json::from_slice(&decoded.body).unwrap()
}

#[test]
fn captured_stock_vector_requests_are_read() {
    // A message recorded from Vector 0.58 has every field of the lines it was made from: those it
    // parsed, with their moments, and those it wrapped.
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/vector-wire");
    let Ok(bytes) = std::fs::read(recorded.join("push-events.bin")) else {
        println!("SKIPPED: the recorded message is not beside this checkout");
        return;
    };
    let lines = std::fs::read_to_string(recorded.join("input.ndjson")).unwrap();
    let input: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events = PushEventsRequest::decode(&*bytes).unwrap().events;
    assert_eq!(events.len(), 2 * input.len());
    let decoded: Vec<DecodedEvent> = events.iter().map(decode).collect();
    let (mut shaped, mut plain) = (Vec::new(), Vec::new());
    for event in &decoded {
        assert_eq!(event.fault, None);
        let body = body(event);
        if body["raw"] == "kept" { plain.push(body) } else { shaped.push(body) }
    }
    for (line, (shaped, plain)) in input.iter().zip(shaped.iter().zip(&plain)) {
        let message: Json = serde_json::from_str(plain["message"].as_str().unwrap()).unwrap();
        assert_eq!(&message, line);
        let mut wanted = line.clone();
        if let Some(seconds) = line.get("ts").and_then(Json::as_i64) {
            let at = jiff::Timestamp::from_second(seconds).unwrap();
            wanted["ts"] = at.to_string().into();
        }
        assert_eq!(shaped, &wanted);
    }
}

#[test]
fn every_value_kind_becomes_json() {
    // Each kind has its JSON; what JSON has no word for is null, what came later is left out.
    let moment = prost_types::Timestamp { seconds: 1_767_225_600, nanos: 5_000_000 };
    let far = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
    let map = |fields: Vec<(&str, Value)>| ValueMap {
        fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    };
    let fields = vec![
        ("text", value(Kind::RawBytes("ü\"\n".into()))),
        ("bytes", value(Kind::RawBytes(vec![b'a', 0xff]))),
        ("moment", value(Kind::Timestamp(moment))),
        ("far", value(Kind::Timestamp(far))),
        ("integer", value(Kind::Integer(i64::MIN))),
        ("float", value(Kind::Float(0.5))),
        ("nan", value(Kind::Float(f64::NAN))),
        ("infinite", value(Kind::Float(f64::INFINITY))),
        ("truth", value(Kind::Boolean(true))),
        ("nothing", value(Kind::Null(0))),
        ("later", Value { kind: None }),
        (
            "list",
            value(Kind::Array(ValueArray {
                items: vec![value(Kind::Integer(1)), Value { kind: None }],
            })),
        ),
        ("map", value(Kind::Map(map(vec![("a", value(Kind::Map(map(vec![]))))])))),
    ];
    let log = Log { fields: map(fields).fields, ..Log::default() };
    let decoded = decode(&EventWrapper { event: Some(Event::Log(log)) });
    let wanted = json!({
        "text": "ü\"\n", "bytes": "a\u{fffd}", "moment": "2026-01-01T00:00:00.005Z", "far": null,
        "integer": i64::MIN, "float": 0.5, "nan": null, "infinite": null, "truth": true,
        "nothing": null, "list": [1, null], "map": { "a": {} },
    });
    assert_eq!((body(&decoded), decoded.fault, decoded.kind), (wanted, None, EventKind::Event));

    // A root that is no object stands in `value`; what is in `fields` then means nothing.
    let log = Log {
        fields: map(vec![(".", value(Kind::Null(0)))]).fields,
        value: Some(value(Kind::RawBytes("line".into()))),
        ..Log::default()
    };
    assert_eq!(body(&decode(&EventWrapper { event: Some(Event::Log(log)) })), json!("line"));
    let trace =
        Trace { fields: map(vec![("a", value(Kind::Integer(1)))]).fields, ..Trace::default() };
    assert_eq!(
        body(&decode(&EventWrapper { event: Some(Event::Trace(trace)) })),
        json!({ "a": 1 })
    );
}

#[test]
fn metadata_is_kept_without_secrets() {
    // What Vector knew of an event is there for `%` paths, its id for deduplication; secrets, which
    // travel in field 6, are not even read.
    let metadata = Metadata {
        source_id: Some("in".into()),
        source_type: Some("file".into()),
        upstream_id: Some(OutputId { component: "shape".into(), port: Some("dropped".into()) }),
        source_event_id: vec![7; 16],
        ..Metadata::default()
    };
    let mut bytes = metadata.encode_to_vec();
    // Secrets { entries = 1 } with one entry "api" -> "hush".
    bytes.extend(b"\x32\x0d\x0a\x0b\x0a\x03api\x12\x04hush");
    let metadata = Metadata::decode(&*bytes).unwrap();
    let log = Log { metadata_full: Some(metadata), ..Log::default() };
    let decoded = decode(&EventWrapper { event: Some(Event::Log(log)) });
    let meta: Json = serde_json::from_slice(decoded.meta.as_ref().unwrap()).unwrap();
    assert_eq!(
        meta,
        json!({ "source_id": "in", "source_type": "file", "upstream": "shape.dropped" })
    );
    let id = decoded.transport_id().unwrap();
    assert!(id.starts_with("vector/07070707-0707-0707-0707-070707070707/"), "{id}");
    assert!(!format!("{decoded:?}").contains("hush"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_event_affects_no_other() {
    // Of metrics and events of unknown kinds one each becomes a record with a fault, the others of
    // that minute are dropped; malformed events become records with a fault. Their neighbours are as
    // they were, in their order, and the answer is OK, plain or compressed.
    let mut bench = Bench::start(json!({})).await;
    let client = connect(bench.port).await;
    let metric = Metric { name: "cpu".into(), ..Metric::default() };
    let events = vec![
        log(&json!({ "n": 1 }), 1),
        EventWrapper { event: Some(Event::Metric(metric)) },
        EventWrapper { event: None },
        log(&json!({ "n": 2 }), 2),
    ];
    let mut many = 4;
    for coding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut client = client.clone();
        if let Some(coding) = coding {
            client = client.send_compressed(coding);
        }
        let push = client.push_events(request(events.clone()));
        let (answer, records) = tokio::join!(push, bench.settle(many, Verdict::Delivered));
        let answer = answer.unwrap_or_else(|status| panic!("{coding:?}: {status}"));
        let codings = answer.metadata().get("grpc-accept-encoding").unwrap();
        assert_eq!(codings, "identity,gzip,zstd");
        let faults: Vec<bool> =
            records.iter().map(|record| record.decode_error.is_some()).collect();
        let wanted: &[bool] = if many == 4 { &[false, true, true, false] } else { &[false, false] };
        assert_eq!(faults, wanted);
        assert_eq!(records[0].body, "{\"n\":1}");
        assert_eq!(records.last().unwrap().body, "{\"n\":2}");
        assert_eq!(records[0].ack_on, AckOn::Persisted);
        many = 2;
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_follow_the_verdicts() {
    // Rejected events are answered with OK, unsettled ones with INTERNAL; a full pipeline says
    // RESOURCE_EXHAUSTED, one that stops UNAVAILABLE; none of them makes Vector drop events.
    let mut bench = Bench::start(json!({ "acknowledge": "delivery" })).await;
    let mut client = connect(bench.port).await;
    let one = || request(vec![log(&json!({ "n": 1 }), 1)]);
    let (answer, records) =
        tokio::join!(client.push_events(one()), bench.settle(1, Verdict::Rejected));
    assert!(answer.is_ok());
    assert_eq!(records[0].ack_on, AckOn::Finalized);
    let mut second = client.clone();
    let (answer, _) = tokio::join!(second.push_events(one()), bench.settle(1, Verdict::Errored));
    assert_eq!(answer.unwrap_err().code(), Code::Internal);

    // 1,024 fill the channel that is not read.
    let many = (0..2_000).map(|n| log(&json!({ "n": n }), n)).collect();
    let answer = client.push_events(request(many)).await;
    assert_eq!(answer.unwrap_err().code(), Code::ResourceExhausted);

    bench.stop.cancel();
    let health = client.health_check(HealthCheckRequest {}).await;
    assert!(health.is_err() || health.unwrap().get_ref().status == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_check_reports_serving() {
    // Vector's own health check and the one of load balancers both say that it serves.
    let bench = Bench::start(json!({})).await;
    let mut client = connect(bench.port).await;
    let health = client.health_check(HealthCheckRequest {}).await.unwrap();
    assert_eq!(health.get_ref().status, 0);
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", bench.port)).unwrap();
    let mut standard =
        tonic_health::pb::health_client::HealthClient::new(endpoint.connect().await.unwrap());
    let asked = tonic_health::pb::HealthCheckRequest { service: "vector.Vector".into() };
    assert_eq!(standard.check(asked).await.unwrap().get_ref().status, 1);
    drop((client, standard));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_request_leaves_no_partial_event() {
    // A call that is dropped by its sender leaves its events whole on their way.
    let mut bench = Bench::start(json!({})).await;
    let mut client = connect(bench.port).await;
    let events = (0..500).map(|n| log(&json!({ "n": n }), n)).collect();
    let push = client.push_events(request(events));
    assert!(tokio::time::timeout(Duration::from_millis(300), push).await.is_err());
    let records = bench.settle(500, Verdict::Delivered).await;
    assert!(records.iter().all(|record| record.transport_id.is_some()));
    drop(client);
    bench.end().await;
}

/// An arbitrary value of the wire's own types.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12).prop_map(Kind::RawBytes),
        "[\\x00-\\x7fé😀]{0,8}".prop_map(|text| Kind::RawBytes(text.into_bytes())),
        any::<i64>().prop_map(Kind::Integer),
        any::<f64>().prop_map(Kind::Float),
        any::<bool>().prop_map(Kind::Boolean),
        Just(Kind::Null(0)),
        (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| Kind::Timestamp(
            prost_types::Timestamp { seconds, nanos }
        )),
        (-62_135_596_800_i64..253_402_300_800, 0..1_000_000_000_i32).prop_map(
            |(seconds, nanos)| Kind::Timestamp(prost_types::Timestamp { seconds, nanos })
        ),
    ];
    let leaf = prop::option::weighted(0.9, leaf).prop_map(|kind| Value { kind });
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|items| value(Kind::Array(ValueArray { items }))),
            prop::collection::btree_map("[a-c\"\n]{0,2}", inner, 0..6)
                .prop_map(|fields| value(Kind::Map(ValueMap { fields }))),
        ]
    })
}

/// What a value is in JSON, by way of whole trees: the naive way.
fn naive(of: &Value) -> Json {
    match &of.kind {
        None | Some(Kind::Null(_)) => Json::Null,
        Some(Kind::RawBytes(bytes)) => String::from_utf8_lossy(bytes).into(),
        Some(Kind::Timestamp(at)) => match jiff::Timestamp::new(at.seconds, at.nanos) {
            Ok(at) => at.to_string().into(),
            Err(_) => Json::Null,
        },
        Some(Kind::Integer(number)) => json!(number),
        Some(Kind::Float(number)) => json!(number),
        Some(Kind::Boolean(truth)) => json!(truth),
        Some(Kind::Map(map)) => naive_object(&map.fields),
        Some(Kind::Array(array)) => array.items.iter().map(naive).collect(),
    }
}

fn naive_object(fields: &std::collections::BTreeMap<String, Value>) -> Json {
    let known = fields.iter().filter(|(_, value)| value.kind.is_some());
    known
        .map(|(name, value)| (name.clone(), naive(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

proptest! {
    #[test]
    fn event_decoded_from_bytes_equals_the_message_tree(
        fields in prop::collection::btree_map("[a-c]{0,2}", any_value(), 0..6),
        root in prop::option::weighted(0.2, any_value()),
    ) {
        // Guarantees that reading an event without building it gives the JSON its tree stands for.
        let wanted = root.as_ref().map_or_else(|| naive_object(&fields), naive);
        let log = Log { fields, value: root, ..Log::default() };
        let decoded = decode(&EventWrapper { event: Some(Event::Log(log)) });
        prop_assert_eq!(decoded.fault.as_deref(), None);
        let text = std::str::from_utf8(&decoded.body).unwrap();
        prop_assert_eq!(text, wanted.to_string());
    }

    #[test]
    fn any_bytes_decode_to_an_event_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // Guarantees that no bytes make reading panic, and that what is no fault is JSON.
        let decoded = usercom_sink::source::vector::decode(&bytes);
        if decoded.fault.is_none() {
            prop_assert!(serde_json::from_slice::<Json>(&decoded.body).is_ok());
        }
    }
}

#[test]
fn too_deeply_nested_event_is_a_fault() {
    // Guarantees that lists or objects within each other beyond the limit end as a fault with words,
    // not as a refused request, and that what is within the limit is read.
    let nested = |levels: usize| {
        let mut inner = value(Kind::Integer(1));
        for _ in 0..levels {
            inner = value(Kind::Array(ValueArray { items: vec![inner] }));
        }
        let log = Log { fields: [("a".to_owned(), inner)].into(), ..Log::default() };
        decode(&EventWrapper { event: Some(Event::Log(log)) })
    };
    assert_eq!(nested(100).fault, None);
    assert!(nested(101).fault.unwrap().contains("nested more than 100 levels deep"));
    assert!(nested(300).fault.is_some());
}
