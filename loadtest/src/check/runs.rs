//! No accepted run is lost.

use super::{CheckError, Database, Evidence, Verdict};
use gristmill_common::invariant::Invariant;
use sqlx::Row;

/// Every run that the client knows to be accepted is in the database.
pub(super) async fn check(
    evidence: &Evidence,
    database: &Database,
    verdict: &mut Verdict,
) -> Result<(), CheckError> {
    let (dags, runs): (Vec<&str>, Vec<&str>) = evidence
        .accepted
        .iter()
        .map(|run| (run.dag_id.as_str(), run.run_id.as_str()))
        .unzip();
    let lost = sqlx::query(
        "SELECT a.dag_id, a.run_id FROM unnest($1::text[], $2::text[]) AS a (dag_id, run_id)
         WHERE NOT EXISTS (SELECT FROM dag_runs r WHERE r.dag_id = a.dag_id AND r.run_id = a.run_id)
         ORDER BY 1, 2",
    )
    .bind(dags)
    .bind(runs)
    .fetch_all(&database.pool)
    .await?;
    for row in lost {
        let (dag, run): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let what = format!("run {run} of {dag} was accepted and is not in the database");
        verdict.breach(Invariant::NoRunLost, what);
    }
    verdict.counted.accepted_runs = evidence.accepted.len();
    Ok(())
}
