//! The DAG files of the benchmark.

/// Pool of the tasks that run side by side, so that only the worker's slots limit them.
pub(super) const POOL: &str = "bench";
pub(super) const POOL_SLOTS: usize = 100_000;

pub(super) const SINGLE: &str = "bench_single";
pub(super) const CHAIN: &str = "bench_chain";
pub(super) const FANOUT_SHELL: &str = "bench_fanout_shell";
pub(super) const FANOUT_NOOP: &str = "bench_fanout_noop";
pub(super) const DIAMOND: &str = "bench_diamond";

/// Tasks of a chain.
pub(super) const CHAIN_LENGTH: usize = 10;
/// Tasks of a diamond.
pub(super) const DIAMOND_SIZE: usize = 4;
/// Runs of the diamond that are triggered at once.
pub(super) const BURST: usize = 50;

/// Ids and texts of all DAG files.
pub(super) fn all(fanout: u32) -> [(&'static str, String); 5] {
    [
        (
            SINGLE,
            format!("dag_id: {SINGLE}\ntasks:\n  only: {{shell: \"true\"}}\n"),
        ),
        (CHAIN, chain()),
        (
            FANOUT_SHELL,
            fan_out(FANOUT_SHELL, fanout, "shell: \"true\""),
        ),
        (FANOUT_NOOP, fan_out(FANOUT_NOOP, fanout, "noop: {}")),
        (DIAMOND, diamond()),
    ]
}

/// Task instances of one run.
pub(super) fn size(dag_id: &str, fanout: u32) -> usize {
    match dag_id {
        SINGLE => 1,
        CHAIN => CHAIN_LENGTH,
        DIAMOND => DIAMOND_SIZE,
        _ => fanout as usize,
    }
}

fn chain() -> String {
    let mut yaml = format!("dag_id: {CHAIN}\ntasks:\n  t0: {{shell: \"true\"}}\n");
    for task in 1..CHAIN_LENGTH {
        yaml.push_str(&format!(
            "  t{task}: {{depends_on: [t{}], shell: \"true\"}}\n",
            task - 1
        ));
    }
    yaml
}

/// One mapped task over a literal list.
fn fan_out(dag_id: &str, tasks: u32, work: &str) -> String {
    let items: Vec<String> = (0..tasks).map(|item| item.to_string()).collect();
    format!(
        "dag_id: {dag_id}\nmax_active_tasks: {tasks}\ntasks:\n  work:\n    pool: {POOL}\n    expand: {{item: [{}]}}\n    {work}\n",
        items.join(", ")
    )
}

fn diamond() -> String {
    format!(
        "dag_id: {DIAMOND}\nmax_active_runs: {BURST}\ndefault_args: {{pool: {POOL}}}\ntasks:\n  \
         a: {{shell: \"true\"}}\n  \
         b: {{depends_on: [a], shell: \"true\"}}\n  \
         c: {{depends_on: [a], shell: \"true\"}}\n  \
         d: {{depends_on: [b, c], shell: \"true\"}}\n"
    )
}
