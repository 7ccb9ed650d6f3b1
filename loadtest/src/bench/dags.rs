//! The DAG files of the benchmark.

/// Pool of the tasks that run side by side, so that only the worker's slots limit them.
pub(crate) const POOL: &str = "bench";
pub(super) const POOL_SLOTS: usize = 1_000_000;

pub(super) const SINGLE: &str = "bench_single";
pub(super) const CHAIN: &str = "bench_chain";
pub(super) const FANOUT_SHELL: &str = "bench_fanout_shell";
pub(super) const FANOUT_NOOP: &str = "bench_fanout_noop";
pub(super) const DIAMOND: &str = "bench_diamond";
pub(super) const ASLEEP: &str = "bench_asleep";
pub(super) const SURVIVOR: &str = "bench_survivor";
pub(super) const MAPPED_SMALL: &str = "bench_mapped_small";
pub(super) const MAPPED_LARGE: &str = "bench_mapped_large";

/// Both of them.
pub(crate) const MAPPED_DAGS: [&str; 2] = [MAPPED_SMALL, MAPPED_LARGE];

/// What the survivor's process is known by.
pub(super) const SURVIVOR_SLEEP: &str = "86398";

/// Tasks of a chain.
pub(super) const CHAIN_LENGTH: usize = 10;
/// Tasks of a diamond.
pub(super) const DIAMOND_SIZE: usize = 4;
/// Runs of the diamond that are triggered at once.
pub(super) const BURST: usize = 50;

/// A DAG file and how many task instances a run of it has.
pub(super) struct Dag {
    pub(super) id: &'static str,
    pub(super) yaml: String,
    pub(super) size: usize,
}

/// The DAG files of the short scenarios, with fan-outs of so many shell and noop tasks.
pub(super) fn all(shell: u32, noop: u32) -> [Dag; 5] {
    [
        Dag {
            id: SINGLE,
            yaml: format!("dag_id: {SINGLE}\ntasks:\n  only: {{shell: \"true\"}}\n"),
            size: 1,
        },
        Dag {
            id: CHAIN,
            yaml: chain(),
            size: CHAIN_LENGTH,
        },
        fan_out(FANOUT_SHELL, shell, "shell: \"true\""),
        fan_out(FANOUT_NOOP, noop, "noop: {}"),
        Dag {
            id: DIAMOND,
            yaml: diamond(),
            size: DIAMOND_SIZE,
        },
    ]
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
pub(super) fn fan_out(id: &'static str, tasks: u32, work: &str) -> Dag {
    Dag {
        id,
        yaml: format!(
            "dag_id: {id}\nmax_active_tasks: {tasks}\ntasks:\n  work:\n    pool: {POOL}\n    expand: {{item: {}}}\n    {work}\n",
            list(tasks)
        ),
        size: tasks as usize,
    }
}

/// One mapped task over every pair of two lists: a literal list alone would make the file too long.
pub(super) fn mapped(id: &'static str, rows: u32, columns: u32) -> Dag {
    let tasks = rows * columns;
    Dag {
        id,
        yaml: format!(
            "dag_id: {id}\nmax_active_tasks: {tasks}\ntasks:\n  work:\n    pool: {POOL}\n    expand: {{row: {}, column: {}}}\n    noop: {{}}\n",
            list(rows),
            list(columns)
        ),
        size: tasks as usize,
    }
}

/// Shell tasks that sleep until they are cancelled.
pub(super) fn asleep(tasks: u32) -> Dag {
    fan_out(ASLEEP, tasks, "shell: exec sleep 86399")
}

/// One shell task whose first attempt sleeps until its worker dies; the next one ends at once.
pub(super) fn survivor() -> Dag {
    Dag {
        id: SURVIVOR,
        yaml: format!(
            "dag_id: {SURVIVOR}\ntasks:\n  only:\n    shell: '[ \"$TRY\" -gt 1 ] || exec sleep {SURVIVOR_SLEEP}'\n    \
             env: {{TRY: \"{{{{ ti.try_number }}}}\"}}\n"
        ),
        size: 1,
    }
}

/// `[0, 1, …]` of YAML.
fn list(length: u32) -> String {
    let items: Vec<String> = (0..length).map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
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

#[cfg(test)]
mod tests {
    use super::{all, asleep, mapped, survivor};

    #[test]
    fn files_are_as_they_should_be() {
        let [single, _, shell, _, diamond] = all(3, 4);
        assert_eq!(single.size, 1);
        assert!(
            shell.yaml.contains("max_active_tasks: 3\n"),
            "{}",
            shell.yaml
        );
        assert!(
            shell.yaml.contains("expand: {item: [0, 1, 2]}"),
            "{}",
            shell.yaml
        );
        assert!(
            diamond.yaml.contains("b: {depends_on: [a], shell"),
            "{}",
            diamond.yaml
        );
        assert_eq!(mapped("m", 3, 4).size, 12);
        assert!(asleep(2).yaml.contains("shell: exec sleep"));
        assert!(
            survivor()
                .yaml
                .contains("env: {TRY: \"{{ ti.try_number }}\"}")
        );
    }
}
