//! A copy of a store in memory: what a run would begin with, for a run that changes nothing.

use std::path::Path;

use rusqlite::Connection;

use super::error::StoreError;
use super::schema;
use super::sizes::BufferSizes;
use super::store::Store;

/// The tables that decide what a run sends. Dead letters are not among them.
const COPIED_TABLES: [&str; 7] =
    ["checkpoints", "buffer", "intake", "dispatched", "seen", "cache", "quotas"];

impl Store {
    /// A store in memory with the state of the one in `dir`, which is only read; empty if there is
    /// none. It takes as much memory as the store has data. Blocks while it copies.
    ///
    /// # Errors
    /// Those of opening it for reading.
    pub fn copy_in_memory(dir: &Path) -> Result<Self, StoreError> {
        let path = schema::file_in(dir);
        let conn = schema::open_memory().map_err(|e| StoreError::sqlite(&path, e))?;
        if path.exists() {
            schema::attach_for_reading(&conn, &path)?;
            copy(&conn).map_err(|e| StoreError::sqlite(&path, e))?;
        }
        let sizes = BufferSizes::read(&conn, &path)?;
        Self::of_memory(conn, sizes)
    }
}

fn copy(conn: &Connection) -> rusqlite::Result<()> {
    let tx = conn.unchecked_transaction()?;
    for table in COPIED_TABLES {
        tx.execute(&format!("INSERT INTO main.{table} SELECT * FROM original.{table}"), [])?;
    }
    tx.commit()?;
    conn.execute("DETACH DATABASE original", [])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Access;
    use crate::source::Checkpoints;

    #[tokio::test]
    async fn copy_has_the_state_and_the_original_is_not_changed() {
        // Guarantees that checkpoints are copied, that writes stay in the copy, that names with
        // special characters work, and that a folder without a store is an empty one.
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a ?#%41");
        let store = Store::open(&folder, Access::Owner).unwrap();
        store.save("app", vec![("k".to_owned(), Some("1".to_owned()))]).await.unwrap();
        let copy = Store::copy_in_memory(&folder).unwrap();
        assert_eq!(copy.load("app").await.unwrap(), [("k".to_owned(), "1".to_owned())]);
        copy.save("app", vec![("k".to_owned(), Some("2".to_owned()))]).await.unwrap();
        assert_eq!(store.load("app").await.unwrap(), [("k".to_owned(), "1".to_owned())]);
        store.close().await;
        let none = dir.path().join("none");
        assert!(Store::copy_in_memory(&none).unwrap().load("app").await.unwrap().is_empty());
        assert!(!none.exists());
    }
}
