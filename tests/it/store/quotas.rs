//! What sinks learned of their quotas.

use jiff::Timestamp;
use tempfile::TempDir;
use usercom_sink::buffer::{Access, Store};
use usercom_sink::clock;

use super::{SINK, owner};

#[tokio::test]
async fn learned_quota_survives_a_restart_of_its_account_only() {
    // What was saved last is read after a restart, by its sink and for its account; an older row
    // than wanted is not, and a sink has one row.
    let dir = TempDir::new().unwrap();
    let store = owner(&dir);
    let before = clock::now();
    for (sink, account, value) in
        [(SINK, "old", "1"), (SINK, "a", "2"), (SINK, "a", "3"), ("other", "a", "4")]
    {
        store.save_quota(sink, account, value.into()).await.unwrap();
    }
    store.close().await;
    let store = owner(&dir);
    let value = async |sink: &str, account: &str, since: Timestamp| {
        store.load_quota(sink, account, since).await.unwrap().map(|(value, _)| value)
    };
    assert_eq!(value(SINK, "a", before).await.as_deref(), Some("3"));
    assert_eq!(value("other", "a", before).await.as_deref(), Some("4"));
    assert_eq!(value(SINK, "old", before).await, None);
    let later = clock::now() + jiff::SignedDuration::from_secs(60);
    assert_eq!(value(SINK, "a", later).await, None);
    store.close().await;
    let reader = Store::open(dir.path(), Access::ReadOnly).unwrap();
    assert!(reader.save_quota(SINK, "a", "5".into()).await.is_err());
}
