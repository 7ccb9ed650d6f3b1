//! The DAG files that `run` deploys.

use super::args::Work;

/// What the tasks of a DAG do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tasks {
    pub(super) work: Work,
    /// Mapped tasks of a fan-out.
    pub(super) width: u32,
    /// Bytes of the XCom that the first task hands to the others; 0 for none.
    pub(super) payload: u64,
    /// Whether the conf says which tasks fail at their first attempt.
    pub(super) failing: bool,
}

/// A form of DAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Single,
    Chain,
    Fanout,
    Diamond,
}

/// Tasks of a chain.
const CHAIN_LENGTH: usize = 10;

/// A deployed file.
#[derive(Debug, Clone)]
pub(super) struct Dag {
    pub(super) id: String,
    pub(super) yaml: String,
    /// Task instances of a run.
    pub(super) size: usize,
    /// Ids of its tasks that are not mapped: the conf says of each whether it fails.
    pub(super) tasks: Vec<String>,
    /// Instances of its mapped task, likewise.
    pub(super) mapped: u32,
}

impl Shape {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Chain => "chain",
            Self::Fanout => "fanout",
            Self::Diamond => "diamond",
        }
    }

    /// The file of this shape.
    pub(super) fn dag(self, prefix: &str, pool: &str, tasks: Tasks) -> Dag {
        let ids: Vec<(String, Vec<String>)> = match self {
            Self::Single => vec![("t0".to_owned(), Vec::new())],
            Self::Chain => (0..CHAIN_LENGTH)
                .map(|n| {
                    let upstream = n.checked_sub(1).map(|before| format!("t{before}"));
                    (format!("t{n}"), upstream.into_iter().collect())
                })
                .collect(),
            // Only with a payload there is something to hand over.
            Self::Fanout => (tasks.payload > 0)
                .then(|| ("t0".to_owned(), Vec::new()))
                .into_iter()
                .collect(),
            Self::Diamond => {
                let task = |id: &str, upstreams: &[&str]| {
                    let upstreams = upstreams.iter().map(|&id| id.to_owned()).collect();
                    (id.to_owned(), upstreams)
                };
                vec![
                    task("t0", &[]),
                    task("t1", &["t0"]),
                    task("t2", &["t0"]),
                    task("t3", &["t1", "t2"]),
                ]
            }
        };
        let mapped = if self == Self::Fanout { tasks.width } else { 0 };
        let id = format!("{prefix}_{}", self.name());
        // Nothing but the workers' slots limits.
        let mut yaml = format!(
            "dag_id: {id}\nmax_active_runs: 100000\nmax_active_tasks: 10000\n\
             default_args: {{pool: {pool}, retries: 3, retry_delay: 1s}}\ntasks:\n"
        );
        for (task, upstreams) in &ids {
            yaml.push_str(&format!("  {task}:\n"));
            if !upstreams.is_empty() {
                yaml.push_str(&format!("    depends_on: [{}]\n", upstreams.join(", ")));
            }
            let fails = format!("dag_run.conf.fails.{task}");
            yaml.push_str(&tasks.body(upstreams.is_empty(), &fails));
        }
        if mapped > 0 {
            yaml.push_str("  work:\n");
            if tasks.payload > 0 {
                yaml.push_str("    depends_on: [t0]\n");
            }
            yaml.push_str(&match tasks.failing {
                true => "    expand: {fails: \"{{ dag_run.conf.mapped }}\"}\n".to_owned(),
                false => {
                    let items: Vec<String> = (0..mapped).map(|item| item.to_string()).collect();
                    format!("    expand: {{item: [{}]}}\n", items.join(", "))
                }
            });
            yaml.push_str(&tasks.body(false, "map.fails"));
        }
        Dag {
            id,
            yaml,
            size: ids.len() + mapped as usize,
            tasks: ids.into_iter().map(|(id, _)| id).collect(),
            mapped,
        }
    }
}

impl Tasks {
    /// What a task does. The first one makes the payload, the others read it; only builtins of the shell decide whether it
    /// fails, so that no other process is paid for.
    fn body(self, first: bool, fails: &str) -> String {
        if self.work == Work::Noop {
            return "    noop: {}\n".to_owned();
        }
        let mut command = match (self.payload, first) {
            (0, _) => "true".to_owned(),
            (bytes, true) => format!("head -c {bytes} /dev/zero | tr \"\\\\0\" x"),
            (_, false) => "cat >/dev/null".to_owned(),
        };
        let mut env = String::new();
        if self.failing {
            command = format!("[ \"$FAILS$TRY\" != 11 ] && {command}");
            env = format!(
                "    env: {{FAILS: \"{{{{ {fails} }}}}\", TRY: \"{{{{ ti.try_number }}}}\"}}\n"
            );
        }
        let stdin = match (self.payload, first) {
            (1.., false) => ", stdin: \"{{ ti.xcom_pull('t0') }}\"",
            _ => "",
        };
        // Within single quotes of YAML only these are special, and the command has none.
        format!("    shell: {{command: '{command}'{stdin}}}\n{env}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Shape, Tasks, Work};

    const PLAIN: Tasks = Tasks {
        work: Work::Shell,
        width: 3,
        payload: 0,
        failing: false,
    };

    #[test]
    fn sizes_count_every_instance() {
        let size = |shape: Shape, tasks| shape.dag("p", "pool", tasks).size;
        assert_eq!(size(Shape::Single, PLAIN), 1);
        assert_eq!(size(Shape::Chain, PLAIN), 10);
        assert_eq!(size(Shape::Diamond, PLAIN), 4);
        assert_eq!(size(Shape::Fanout, PLAIN), 3);
        let payload = Tasks {
            payload: 1,
            ..PLAIN
        };
        assert_eq!(size(Shape::Fanout, payload), 4);
    }

    #[test]
    fn files_say_what_was_asked_for() {
        let everything = Tasks {
            payload: 10,
            failing: true,
            ..PLAIN
        };
        insta::assert_snapshot!(Shape::Fanout.dag("load", "pool", everything).yaml);
        let plain = Shape::Fanout.dag("load", "pool", PLAIN).yaml;
        assert!(plain.contains("expand: {item: [0, 1, 2]}"), "{plain}");
        assert!(!plain.contains("env:"), "{plain}");
    }
}
