//! What a deployment without work uses.

use super::Bench;
use crate::{
    measure::{IdleRates, Meter},
    report::{Figure, Results},
};
use std::time::Duration;

/// What earlier work leaves behind (log uploads, acknowledgements) is done by then.
const REST: Duration = Duration::from_secs(15);

impl Bench<'_> {
    pub(super) async fn idle(&self, results: &mut Results, report: bool) -> IdleRates {
        tokio::time::sleep(REST).await;
        let meter = Meter::start(self.deployment).await;
        tokio::time::sleep(Duration::from_secs(self.args.idle)).await;
        let (cost, seconds) = meter.read().await;
        if report {
            let per_minute = 60.0 / seconds;
            let ours: f64 = self
                .deployment
                .processes
                .ours()
                .into_iter()
                .filter_map(|group| cost.cpu.get(group))
                .sum();
            results.add(Figure::IdleCpu, ours * per_minute);
            results.add(Figure::IdleCpuAll, cost.cpu_total() * per_minute);
            results.add(Figure::IdlePss, self.deployment.processes.our_pss_mib());
            if let Some(statements) = cost.statements {
                results.add(Figure::IdleStatements, statements / seconds);
            }
        }
        cost.times(1.0 / seconds)
    }
}
