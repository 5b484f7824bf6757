//! Brokers that fail.

use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::json;
use usercom_sink::ack::Verdict;

use super::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn broker_restart_loses_nothing() {
    // All brokers are gone for a while amid reading and settling; afterwards every record has come
    // and every offset is committed.
    let cluster = Cluster::start(3).await;
    let Some(mock) = cluster.mock() else {
        return;
    };
    cluster.produce(0..300, |n| n.to_string()).await;
    let mut member = cluster.join(json!({ "max_in_flight": 50 }));
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 100 {
        seen.insert(member.next().await.unwrap().settle(Verdict::Delivered));
    }
    mock.broker_down(-1).unwrap();
    for _ in 0..20 {
        if let Some(got) = member.soon(Duration::from_millis(100)).await {
            seen.insert(got.settle(Verdict::Delivered));
        }
    }
    mock.broker_up(-1).unwrap();
    while seen.len() < 300 {
        seen.insert(member.next().await.unwrap().settle(Verdict::Delivered));
    }
    assert!(seen.iter().copied().eq(0..300));
    cluster.until_committed(300).await;
    member.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_broker_requests_are_retried() {
    // Commits and fetches that the brokers refuse for now are made again.
    let cluster = Cluster::start(2).await;
    let Some(mock) = cluster.mock() else {
        return;
    };
    cluster.produce(0..100, |n| n.to_string()).await;
    let mut member = cluster.join(json!({}));
    use RDKafkaRespErr::*;
    let passing = [
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        RD_KAFKA_RESP_ERR__TRANSPORT,
        RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ];
    mock.request_errors(RDKafkaApiKey::OffsetCommit, &passing);
    let leader = [RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR__TRANSPORT];
    mock.request_errors(RDKafkaApiKey::Fetch, &leader);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 100 {
        seen.insert(member.next().await.unwrap().settle(Verdict::Delivered));
    }
    cluster.until_committed(100).await;
    member.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_without_brokers_ends_in_time() {
    // The last commit cannot be made: the source ends all the same, and the next run reads again
    // what was not committed.
    let cluster = Cluster::start(1).await;
    let Some(mock) = cluster.mock() else {
        return;
    };
    cluster.produce(0..5, |n| n.to_string()).await;
    let mut member = cluster.join(json!({ "commit_interval_ms": 3_600_000 }));
    for got in member.take(5).await {
        got.settle(Verdict::Delivered);
    }
    mock.broker_down(-1).unwrap();
    let started = tokio::time::Instant::now();
    member.leave().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}
