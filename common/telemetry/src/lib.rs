//! Logging and metrics of every role.

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use std::{io::IsTerminal, str::FromStr};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// What is logged unless `GRISTMILL_LOG` says otherwise. The AMQP client logs whole message bodies and every ordinary
/// disconnect: what matters of that we log ourselves.
const FILTER: &str =
    "info,lapin=off,amq_protocol=off,amq_protocol_tcp=off,tcp_stream=off,sqlx=warn";

/// Buckets of every `_seconds` histogram.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0,
];

/// The shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// JSON unless standard error is a terminal.
    #[default]
    Auto,
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!(
                "{other:?} is no log format: use auto, text or json"
            )),
        }
    }
}

/// Starts logging to standard error: `GRISTMILL_LOG` filters (as in `RUST_LOG`, on top of what is off by default), `format`
/// shapes. A second call does nothing.
pub fn init_logging(format: LogFormat) {
    let wanted = std::env::var("GRISTMILL_LOG").unwrap_or_default();
    let filter =
        EnvFilter::try_new(format!("{FILTER},{wanted}")).unwrap_or_else(|_| EnvFilter::new(FILTER));
    let text = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let _ = if text {
        registry.with(layer.compact()).try_init()
    } else {
        registry.with(layer.json().flatten_event(true)).try_init()
    };
}

/// Starts recording metrics; the handle renders them for Prometheus.
pub fn init_metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets(&SECONDS)?
        .install_recorder()
}

pub use metrics_exporter_prometheus::PrometheusHandle as MetricsHandle;
