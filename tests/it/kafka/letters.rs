//! Rejected records in a topic of their own.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;
use usercom_sink::ack::Verdict;

use super::cluster::Cluster;

/// The first so many messages of a topic's only partition.
fn messages(cluster: &Cluster, topic: &str, count: usize) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.servers())
        .set("group.id", "reads-letters")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut found = Vec::new();
    for _ in 0..300 {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            found.push(message.detach());
        }
        if found.len() >= count {
            break;
        }
    }
    found
}

fn header(message: &OwnedMessage, name: &str) -> Option<Vec<u8>> {
    let headers = message.headers()?;
    headers.iter().find(|header| header.key == name)?.value.map(<[u8]>::to_vec)
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_records_are_produced_unchanged() {
    // A rejected record's key, payload and headers stand in the topic of dead letters, with the
    // reason and its origin; delivered ones do not.
    let cluster = Cluster::start(1).await;
    let letters = format!("{}.dead", cluster.topic);
    cluster.create(&letters, 1).await;
    cluster.produce(0..4, |n| format!("k{n}")).await;
    let mut member = cluster.join(json!({ "dead_letter_topic": letters }));
    for got in member.take(4).await {
        match got.n {
            1 => got.ack().reject("status_400: no such field"),
            3 => got.ack().settle(Verdict::Rejected),
            _ => got.deliver(),
        }
    }
    cluster.until_committed(4).await;
    member.leave().await.unwrap();
    let found = messages(&cluster, &letters, 2);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].key(), Some(&b"k1"[..]));
    assert_eq!(found[0].payload(), Some(&b"{\"n\":1}"[..]));
    assert_eq!(header(&found[0], "raw"), Some(b"\xff\x01".to_vec()));
    let reason = header(&found[0], "usercom-sink-reason").unwrap();
    assert_eq!(reason, b"status_400: no such field");
    let origin = header(&found[0], "usercom-sink-origin").unwrap();
    assert_eq!(origin, format!("{}/0/1", cluster.topic).into_bytes());
    assert!(header(&found[1], "usercom-sink-reason").is_some(), "a reason in general");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_commit_passes_an_unwritten_dead_letter() {
    // While the brokers refuse the letter, its record is not committed; once they take it, it is.
    let cluster = Cluster::start(1).await;
    let Some(mock) = cluster.mock() else {
        return;
    };
    let letters = format!("{}.dead", cluster.topic);
    cluster.create(&letters, 1).await;
    cluster.produce(0..3, |n| format!("k{n}")).await;
    let mut member = cluster.join(json!({ "dead_letter_topic": letters }));
    let got = member.take(3).await;
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 3];
    mock.request_errors(RDKafkaApiKey::Produce, &refused);
    for got in got {
        match got.n {
            1 => got.ack().reject("no id"),
            _ => got.deliver(),
        }
    }
    cluster.until_committed(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.committed_sum(), 1, "the letter is not written yet");
    cluster.until_committed(3).await;
    member.leave().await.unwrap();
    assert_eq!(messages(&cluster, &letters, 1).len(), 1);
}
