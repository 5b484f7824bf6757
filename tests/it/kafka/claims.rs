//! What one member leaves the next to know: which records may have been sent.

use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::json;

use super::cluster::{Cluster, Member};

/// As a member writes it next to its commits.
fn claim(before: i64) -> String {
    format!("usercom-sink: may have sent before {before}")
}

/// Takes so many records, each of which must be covered by the claim that the brokers have, and
/// delivers them. The offsets of those that are in doubt.
async fn doubtful(cluster: &Cluster, member: &mut Member, count: usize) -> Vec<i64> {
    let mut doubtful = Vec::new();
    for _ in 0..count {
        let got = member.next().await.unwrap();
        let (_, text) = cluster.commit_of(0).expect("a claim before the first record");
        let claimed = text.rsplit(' ').next().and_then(|number| number.parse().ok());
        let covered = claimed.is_some_and(|claimed: i64| claimed > got.offset);
        assert!(covered || !cluster.keeps_texts(), "{text:?}");
        if got.record.maybe_sent {
            doubtful.push(got.offset);
        }
        got.deliver();
    }
    doubtful
}

#[tokio::test(flavor = "multi_thread")]
async fn records_claimed_by_killed_member_are_maybe_sent() {
    // Between the commit and its claim a record may have been sent; after it none was.
    let cluster = Cluster::start(1).await;
    if !cluster.keeps_texts() {
        eprintln!("left out: the brokers keep no texts beside commits");
        return;
    }
    cluster.produce(0..60, |_| "u".into()).await;
    cluster.commit(0, 5, &claim(12));
    let mut member = cluster.join(json!({}));
    assert_eq!(doubtful(&cluster, &mut member, 55).await, Vec::from_iter(5..12));
    member.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_without_claim_marks_a_bounded_range_as_maybe_sent() {
    // Behind an offset that another program committed, or of which the brokers lost the text, as
    // many records are in doubt as may have been in flight and settled since.
    let cluster = Cluster::start(1).await;
    cluster.produce(0..60, |_| "u".into()).await;
    cluster.commit(0, 5, "set back by hand");
    let mut member = cluster.join(json!({ "max_in_flight": 5 }));
    assert_eq!(doubtful(&cluster, &mut member, 55).await, Vec::from_iter(5..5 + 2 * 5 + 32));
    member.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn member_that_leaves_normally_leaves_no_open_claim() {
    // Where nothing was committed nothing is possibly sent, nor after a member that settled
    // everything: its last commit claims nothing.
    let cluster = Cluster::start(1).await;
    if !cluster.keeps_texts() {
        eprintln!("left out: the brokers keep no texts beside commits");
        return;
    }
    for run in 0..3 {
        cluster.produce(run * 20..(run + 1) * 20, |_| "u".into()).await;
        let mut member = cluster.join(json!({}));
        assert_eq!(doubtful(&cluster, &mut member, 20).await, Vec::<i64>::new());
        member.leave().await.unwrap();
        let end = i64::from(run + 1) * 20;
        assert_eq!(cluster.commit_of(0), Some((end, claim(end))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_record_is_forwarded_while_claims_are_refused() {
    // Brokers that take no commit hold the source back; once they do, it continues by itself.
    let cluster = Cluster::start(1).await;
    let Some(mock) = cluster.mock() else {
        return;
    };
    cluster.produce(0..10, |_| "u".into()).await;
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 30];
    mock.request_errors(RDKafkaApiKey::OffsetCommit, &refused);
    let mut member = cluster.join(json!({}));
    assert!(member.soon(Duration::from_secs(6)).await.is_none(), "nothing is claimed");
    assert_eq!(doubtful(&cluster, &mut member, 10).await, Vec::<i64>::new());
    member.leave().await.unwrap();
}
