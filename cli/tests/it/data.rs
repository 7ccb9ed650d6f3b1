//! A data task over real files, its partitions on several workers.

use crate::support::{Deployment, LATER, Shape};
use gristmill_testkit::roles::binary;
use std::{collections::BTreeSet, path::Path};

const QUERY: &str = "SELECT species, island, count(*) AS birds, sum(try_cast(body_mass_g AS bigint)) AS mass, \
    max(try_cast(flipper_length_mm AS bigint)) AS longest FROM penguins GROUP BY species, island";
const REDUCE: &str = "SELECT species, island, sum(birds) AS birds, sum(mass) AS mass, max(longest) AS longest \
    FROM parts GROUP BY species, island";

/// The lines of all CSV files in a folder.
fn rows(folder: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "csv"));
    files
        .flat_map(|path| {
            std::fs::read_to_string(path)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_query_equals_the_whole_query() {
    let mut deployment = Deployment::of(Shape {
        workers: 0,
        ..Shape::default()
    })
    .await;
    deployment.setup = deployment
        .setup
        .clone()
        .env("GRISTMILL_DATA_ENGINE", binary("gristmill-data").unwrap());
    for _ in 0..3 {
        deployment.add_worker(1, &[]);
    }
    let files = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/dags/penguins/data")
        .canonicalize()
        .unwrap();
    let source = format!(
        "{{penguins: {{format: csv, path: \"file://{}/*.csv\", schema: {{flipper_length_mm: text, body_mass_g: text}}}}}}",
        files.display()
    );
    let (parted, whole) = (
        deployment.dir().join("parted"),
        deployment.dir().join("whole"),
    );
    let sink = |folder: &Path| {
        format!(
            "{{format: csv, path: \"file://{}\", mode: overwrite}}",
            folder.display()
        )
    };
    let yaml = format!(
        "dag_id: penguins
tasks:
  parted:
    data:
      sources: {source}
      partitions: {{by: file}}
      map_sql: {QUERY}
      reduce_sql: {REDUCE}
      resources: {{memory: 128MiB}}
      sink: {}
  whole:
    data:
      sources: {source}
      partitions: {{n: 1}}
      map_sql: {QUERY}
      resources: {{memory: 128MiB}}
      sink: {}
",
        sink(&parted),
        sink(&whole)
    );
    let run = deployment.client.start("penguins", &yaml).await;
    deployment.succeeds(&run, LATER).await;
    let (parted, whole) = (rows(&parted), rows(&whole));
    assert_eq!(parted, whole);
    assert!(parted.len() > 4, "{parted:?}");
    let shares = "SELECT count(*), count(DISTINCT a.worker) FROM task_attempts a JOIN task_instances t ON t.pk = a.ti_pk
        WHERE t.task_id = 'parted.part'";
    assert_eq!(
        deployment.sql(shares).await,
        "9|3",
        "partitions, and workers that had a share"
    );
    let whole = "SELECT count(*) FROM task_attempts a JOIN task_instances t ON t.pk = a.ti_pk
        WHERE t.task_id = 'whole.part'";
    assert_eq!(deployment.sql(whole).await, "1");
}
