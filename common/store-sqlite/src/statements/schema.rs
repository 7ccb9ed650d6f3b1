//! The database itself.

use crate::{
    codec::Flag,
    session::{Session, args},
};
use gristmill_store::StoreResult;

impl Session {
    /// The newest migration that was applied; 0: none.
    pub(crate) async fn schema_version(&mut self) -> StoreResult<i64> {
        // The migrator's own table; a new file has none.
        const TABLE: &str = "
            SELECT json_array(EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations'))";
        const NEWEST: &str =
            "SELECT json_array(coalesce(max(version), 0)) FROM _sqlx_migrations WHERE success";
        let (migrated,): (Flag,) = self.one(TABLE, args![]).await?;
        if !migrated.0 {
            return Ok(0);
        }
        let (version,) = self.one(NEWEST, args![]).await?;
        Ok(version)
    }

    /// Reads the file, whatever is in it.
    pub(crate) async fn ping(&mut self) -> StoreResult<()> {
        let (_,): (i64,) = self
            .one("SELECT json_array(count(*)) FROM sqlite_schema", args![])
            .await?;
        Ok(())
    }
}
