//! From SQL text to a stream of batches.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{JoinType, LogicalPlan};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SQLOptions;

use crate::error::{Error, ErrorKind, Result};
use crate::log;
use crate::session::Session;
use crate::spec::Resources;

/// Plans `sql` (of the spec's key `what`), which must be one query over registered tables.
pub async fn logical_plan(session: &Session, what: &str, sql: &str) -> Result<LogicalPlan> {
    let plan = session
        .context
        .state()
        .create_logical_plan(sql.trim().trim_end_matches(';'))
        .await
        .map_err(|e| Error::in_sql(what, e))?;
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(&plan)
        .map_err(|e| Error::in_sql(what, e).context("only a query is allowed"))?;
    Ok(plan)
}

/// Plans `sql` down to operators, so that every mistake that can be seen without data is seen.
pub async fn physical_plan(
    session: &Session,
    what: &str,
    sql: &str,
) -> Result<Arc<dyn ExecutionPlan>> {
    let logical = logical_plan(session, what, sql).await?;
    session
        .context
        .state()
        .create_physical_plan(&logical)
        .await
        .map_err(|e| Error::in_sql(what, e))
}

/// Starts `plan`; its partitions come as one stream.
pub fn start(
    session: &Session,
    plan: &Arc<dyn ExecutionPlan>,
) -> Result<SendableRecordBatchStream> {
    Ok(execute_stream(
        Arc::clone(plan),
        session.context.task_ctx(),
    )?)
}

/// Runs `attempt` with hash joins; if memory ran out and the plan had one, once more with joins that can spill.
pub async fn with_spilling_joins<T>(
    resources: &Resources,
    attempt: impl AsyncFn(&Session) -> Result<T>,
) -> Result<T> {
    let session = Session::new(resources, true)?;
    match attempt(&session).await {
        Err(error)
            if error.kind == ErrorKind::ResourcesExhausted
                && error.message.contains("HashJoin") =>
        {
            log::warn(format_args!(
                "a hash join ran out of memory, which it cannot spill; trying again with sort-merge joins ({error})"
            ));
            attempt(&Session::new(resources, false)?).await
        }
        other => other,
    }
}

/// What can make the union of `map_sql` over the partitions of `table` differ from `map_sql` over the whole.
#[derive(Debug, Default)]
pub struct PartitionUse {
    /// How often the table is read.
    pub scans: usize,
    /// An operator that looks at many rows at once.
    pub whole_table_operator: Option<&'static str>,
    /// A join that keeps rows of its other side for which this partition has no match.
    pub keeps_other_side: bool,
}

/// Looks at how `plan` uses the partitioned `table`.
pub fn partition_use(plan: &LogicalPlan, table: &str) -> Result<PartitionUse> {
    let mut found = PartitionUse {
        scans: scans(plan, table)?,
        ..PartitionUse::default()
    };
    plan.apply_with_subqueries(|node| {
        let operator = match node {
            LogicalPlan::Aggregate(_) => Some("GROUP BY or an aggregate"),
            LogicalPlan::Distinct(_) => Some("DISTINCT"),
            LogicalPlan::Window(_) => Some("a window function"),
            LogicalPlan::Limit(_) => Some("LIMIT"),
            LogicalPlan::Sort(_) => Some("ORDER BY"),
            _ => None,
        };
        let mut reads = false;
        if operator.is_some() || matches!(node, LogicalPlan::Join(_)) {
            reads = scans(node, table).map_err(to_external)? > 0;
        }
        if let Some(operator) = operator.filter(|_| reads) {
            found.whole_table_operator.get_or_insert(operator);
        }
        if let LogicalPlan::Join(join) = node
            && reads
        {
            let left = scans(&join.left, table).map_err(to_external)? > 0;
            found.keeps_other_side |= match join.join_type {
                JoinType::Full => true,
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                    !left
                }
                JoinType::Right
                | JoinType::RightSemi
                | JoinType::RightAnti
                | JoinType::RightMark => left,
                JoinType::Inner => false,
            };
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn to_external(error: Error) -> datafusion::error::DataFusionError {
    datafusion::error::DataFusionError::External(Box::new(error))
}

fn scans(plan: &LogicalPlan, table: &str) -> Result<usize> {
    let mut count = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.table() == table
        {
            count += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(count)
}
