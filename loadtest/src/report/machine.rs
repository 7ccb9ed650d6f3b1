//! The machine that figures were measured on.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fs;

/// What a reader must know to compare figures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    #[serde(skip)]
    pub looked_at: DateTime<Utc>,
    pub processors: usize,
    pub model: String,
    pub memory_gib: f64,
    pub kernel: String,
    /// Load average of one minute before the first scenario, and after the last.
    pub load_before: f64,
    pub load_after: f64,
}

impl Machine {
    pub fn look() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory_kib = field(&text("/proc/meminfo"), "MemTotal")
            .and_then(|total| total.split_whitespace().next()?.parse::<f64>().ok())
            .unwrap_or(0.0);
        Self {
            looked_at: Utc::now(),
            processors: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            model: field(&text("/proc/cpuinfo"), "model name").unwrap_or_default(),
            memory_gib: (memory_kib / 1024.0 / 1024.0).round(),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: load_average(),
            load_after: 0.0,
        }
    }

    /// Looks again, at the end.
    pub fn finish(&mut self) {
        self.load_after = load_average();
    }
}

/// Load average of the last minute.
fn load_average() -> f64 {
    fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}
