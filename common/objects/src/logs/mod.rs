//! The whole log of each attempt: JSON lines, written as they come, readable at once.

mod reader;
mod writer;

pub use reader::{LogReader, MAX_READ};
pub use writer::LogWriter;

use uuid::Uuid;

use crate::encode_segment;

/// Which attempt's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogKey {
    /// The DAG.
    pub dag_id: String,
    /// The run.
    pub run_id: String,
    /// The task.
    pub task_id: String,
    /// Which of a mapped task's instances; -1 if it is not mapped.
    pub map_index: i32,
    /// Which attempt.
    pub try_number: u32,
    /// The attempt's UUID: two that were given the same number never share a log.
    pub attempt: Uuid,
}

impl LogKey {
    /// The object's key.
    pub fn path(&self) -> String {
        format!(
            "{}/task_id={}/map_index={}/attempt={}-{}.jsonl",
            run_prefix(&self.dag_id, &self.run_id),
            encode_segment(&self.task_id),
            self.map_index,
            self.try_number,
            self.attempt
        )
    }

    /// Where its parts lie while it is written to a store that cannot append.
    fn parts(&self) -> String {
        self.path() + ".parts"
    }
}

/// What all logs of a run begin with: for retention.
pub fn run_prefix(dag_id: &str, run_id: &str) -> String {
    format!(
        "logs/dag_id={}/run_id={}",
        encode_segment(dag_id),
        encode_segment(run_id)
    )
}
