//! Settings of a worker.

use std::{path::PathBuf, time::Duration};

/// Who a worker is and what it may do.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// For people; the incarnation is what counts.
    pub name: String,
    pub hostname: String,
    pub queues: Vec<String>,
    /// Task instances at one time.
    pub concurrency: u32,
    /// Pokes of sensors at one time: short requests and look-ups in the worker itself, beside its tasks.
    pub pokes: u32,
    /// Length of the lease; schedulers must use the same.
    pub lease: Duration,
    /// After SIGTERM: how long running tasks may go on before they are interrupted and requeued.
    pub drain_timeout: Duration,
    /// Folder for scratch folders and unpacked bundles.
    pub work_dir: PathBuf,
    /// The engine of data tasks.
    pub data_engine: PathBuf,
    /// Where XComs come from that Redis has lost, e.g. `http://api:8080`.
    pub api_url: Option<String>,
    /// Names of the worker's own environment variables that tasks see too.
    pub pass_env: Vec<String>,
    /// Bytes of output that a task's log keeps unless the task says otherwise.
    pub output_limit: u64,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            hostname: String::new(),
            queues: vec![gristmill_common::spec::DEFAULT_QUEUE.to_owned()],
            concurrency: 16,
            pokes: 128,
            lease: gristmill_common::message::LEASE,
            drain_timeout: Duration::from_secs(300),
            work_dir: std::env::temp_dir().join("gristmill-worker"),
            data_engine: PathBuf::from("gristmill-data"),
            api_url: None,
            pass_env: Vec::new(),
            output_limit: 64 * 1024 * 1024,
        }
    }
}
