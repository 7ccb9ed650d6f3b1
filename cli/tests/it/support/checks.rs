//! What holds once everything has ended.

use super::{Client, Deployment, Run, SOON};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

impl Deployment {
    /// Waits for a run's end, asserts that it was a success, and that nothing is left behind.
    pub(crate) async fn succeeds(&self, run: &Run, patience: Duration) {
        let ended = self.client.ended(run, patience).await;
        assert_eq!(
            ended["state"],
            "success",
            "{ended}\n{:#?}",
            bad(&self.client, run).await
        );
        self.settles().await;
    }

    /// Every limit is free again, every message gone, and what tasks wrote down is in order. Some of it is done right
    /// after a run has ended, hence waited for.
    pub(crate) async fn settles(&self) {
        let left = "SELECT 'outbox ' || count(*) FROM outbox HAVING count(*) > 0
            UNION ALL SELECT kind || ' ' || name || ' used ' || used FROM limits WHERE used <> 0
            UNION ALL SELECT 'occupying ' || task_id || ' ' || state FROM task_instances WHERE occupies
            UNION ALL SELECT 'run ' || run_id || ' ' || state || ' active ' || active_tasks FROM dag_runs
                WHERE ended_at IS NULL OR active_tasks <> 0";
        self.nothing_left(left).await;
        self.queues_are_empty().await;
        self.each_ended_once().await;
        self.ledger.check();
    }

    async fn nothing_left(&self, query: &str) {
        let mut last = String::new();
        let waited = wait_while(SOON, async || {
            last = self.sql(query).await;
            !last.is_empty()
        });
        assert!(waited.await, "left behind:\n{last}");
    }

    async fn queues_are_empty(&self) {
        let mut last = Value::Null;
        let waited = wait_while(SOON, async || {
            last = self.client.get("/queues").await;
            let queues = last["queues"].as_array().unwrap();
            queues.iter().any(|queue| {
                ["scheduled", "broker", "running"]
                    .iter()
                    .any(|key| queue[key] != 0)
            })
        });
        assert!(waited.await, "queues are not empty: {last}");
    }

    /// Each attempt ended once, under a fence of its own, and each that the ledger knows has its record.
    async fn each_ended_once(&self) {
        let twice = "SELECT ti_pk, fence, count(*) FROM task_attempts GROUP BY ti_pk, fence HAVING count(*) > 1";
        assert_eq!(self.sql(twice).await, "", "attempts that ended twice");
        let records = self.endings().await;
        for ((run, task, map), attempts) in self.ledger.attempts() {
            for attempt in attempts {
                let key = (run.clone(), task.clone(), map, attempt.fence);
                let ending = records
                    .get(&key)
                    .unwrap_or_else(|| panic!("{key:?} ran and has no record"));
                assert!(
                    ending == "lost"
                        || ending == "requeued"
                        || attempt.end.is_some()
                        || ending != "success",
                    "{key:?} was killed and is recorded as {ending}"
                );
            }
        }
    }

    /// How each attempt ended: by run id, task id, map index and fence.
    pub(crate) async fn endings(&self) -> BTreeMap<(String, String, i32, i64), String> {
        let rows = "SELECT r.run_id, t.task_id, t.map_index, a.fence, a.ending FROM task_attempts a
            JOIN task_instances t ON t.pk = a.ti_pk JOIN dag_runs r ON r.pk = a.run_pk";
        let rows = self.sql(rows).await;
        let parse = |line: &str| {
            let words: Vec<&str> = line.split('|').collect();
            let [run, task, map, fence, ending] = words[..] else {
                panic!("a strange row: {line}");
            };
            let key = (
                run.to_owned(),
                task.to_owned(),
                map.parse().unwrap(),
                fence.parse().unwrap(),
            );
            (key, ending.to_owned())
        };
        rows.lines().map(parse).collect()
    }

    /// Number of attempts that ended so.
    pub(crate) async fn count_endings(&self, ending: &str) -> usize {
        self.endings()
            .await
            .values()
            .filter(|of| *of == ending)
            .count()
    }
}

/// Waits until the condition is over; `false` when it is not over in time.
async fn wait_while(patience: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let until = tokio::time::Instant::now() + patience;
    while condition().await {
        if tokio::time::Instant::now() > until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}

/// The task instances that are in the way of a success.
async fn bad(client: &Client, run: &Run) -> Vec<Value> {
    let all = client.instances(run).await;
    all.into_iter()
        .filter(|instance| instance["state"] != "success")
        .collect()
}
