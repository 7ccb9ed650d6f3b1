//! Runs the engine as a worker does: one process per phase, JSON in and out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use datafusion::arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How one process ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    /// [`Value::Null`] if no result was written.
    pub(crate) result: Value,
    pub(crate) log: String,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.code, 0, "{}\n{}", self.result, self.log);
        self.result
    }

    /// The kind and message of the failure, which must have ended with `code`.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, kind: &str) -> String {
        assert_eq!(self.code, code, "{}\n{}", self.result, self.log);
        assert_eq!(self.result["error"]["kind"], kind, "{}", self.result);
        self.result["error"]["message"]
            .as_str()
            .expect("a message")
            .to_owned()
    }
}

/// A folder with sources and work folders, and a way to run phases in it.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) env: Vec<(String, String)>,
    /// Parent of the attempts' folders.
    pub(crate) work: String,
    attempts: std::cell::Cell<u32>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let work = format!("file://{}/work", dir.path().display());
        Self {
            dir,
            env: Vec::new(),
            work,
            attempts: std::cell::Cell::new(0),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, content).expect("a file");
    }

    /// A folder that no other attempt has.
    pub(crate) fn work_dir(&self) -> String {
        self.attempts.set(self.attempts.get() + 1);
        format!("{}/f{}", self.work, self.attempts.get())
    }

    pub(crate) fn run(&self, phase: &str, request: &Value, fault: Option<&str>) -> Outcome {
        let request_at = self.path("request.json");
        let result_at = self.path("result.json");
        std::fs::write(&request_at, request.to_string()).expect("a request");
        std::fs::remove_file(&result_at).ok();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill-data"));
        command
            .arg(phase)
            .arg("--request")
            .arg(&request_at)
            .arg("--result")
            .arg(&result_at)
            .current_dir(self.dir.path())
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        if let Some(fault) = fault {
            command.env(gristmill_data::fault::VARIABLE, fault);
        }
        let output = command.output().expect("the engine starts");
        let result = std::fs::read(&result_at).map_or(Value::Null, |text| {
            serde_json::from_slice(&text).expect("the result is JSON")
        });
        Outcome {
            code: output.status.code().unwrap_or(-1),
            result,
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn plan(&self, spec: &Value) -> Outcome {
        self.run(
            "plan",
            &json!({"spec": spec, "work_dir": self.work_dir()}),
            None,
        )
    }

    pub(crate) fn part(&self, spec: &Value, partition: &Value) -> Outcome {
        let request = json!({"spec": spec, "partition": partition, "work_dir": self.work_dir()});
        self.run("part", &request, None)
    }

    /// Plans and runs all parts; gives a commit request, but for the folder.
    #[track_caller]
    pub(crate) fn up_to_commit(&self, spec: &Value, run_key: &str) -> Value {
        let plan = self.plan(spec).ok();
        let parts: Vec<Value> = plan["partitions"]
            .as_array()
            .expect("partitions")
            .iter()
            .map(|partition| self.part(spec, partition).ok())
            .collect();
        json!({"spec": spec, "plan": plan["plan"], "parts": parts, "run_key": run_key})
    }

    pub(crate) fn commit(&self, request: &Value, fault: Option<&str>) -> Outcome {
        let mut request = request.clone();
        request["work_dir"] = self.work_dir().into();
        self.run("commit", &request, fault)
    }

    /// All phases.
    #[track_caller]
    pub(crate) fn all(&self, spec: &Value) -> Value {
        let request = self.up_to_commit(spec, "run");
        self.commit(&request, None).ok()
    }
}

pub(crate) const REGIONS: [&str; 5] = ["kr", "jp", "tw", "de", "fr"];

/// `rows` orders from number `first` on: id, region, price (a multiple of 1/4, so that sums are exact) and note.
pub(crate) fn orders(first: i64, rows: i64) -> RecordBatch {
    let ids: Vec<i64> = (first..first + rows).collect();
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("region", DataType::Utf8, true),
        Field::new("price", DataType::Float64, true),
        Field::new("note", DataType::Utf8, true),
    ]);
    let regions: StringArray = ids
        .iter()
        .map(|id| Some(REGIONS[(id * 7 % 11) as usize % REGIONS.len()]))
        .collect();
    let prices: Float64Array = ids
        .iter()
        .map(|id| Some((id % 997) as f64 * 0.25))
        .collect();
    let notes: StringArray = ids
        .iter()
        .map(|id| {
            Some(match id % 5 {
                0 => "a, \"quoted\"\nnote over\r\nthree lines".to_owned(),
                1 => "5\" pipe".to_owned(),
                2 => "x".repeat((id % 83) as usize + 1),
                _ => format!("plain {id}"),
            })
        })
        .collect();
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int64Array::from(ids)),
            Arc::new(regions),
            Arc::new(prices),
            Arc::new(notes),
        ],
    )
    .expect("a batch")
}

pub(crate) fn to_csv(batch: &RecordBatch) -> Vec<u8> {
    let mut text = Vec::new();
    datafusion::arrow::csv::Writer::new(&mut text)
        .write(batch)
        .expect("csv");
    text
}

pub(crate) fn to_json(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = datafusion::arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write(batch).expect("json");
    writer.finish().expect("json");
    writer.into_inner()
}

pub(crate) fn to_parquet(batch: &RecordBatch, rows_per_group: usize) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows_per_group))
        .build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).expect("parquet");
    writer.write(batch).expect("parquet");
    writer.into_inner().expect("parquet")
}

/// The rows of a query in one process over the whole data, as the engine would return them.
pub(crate) fn whole_query(batch: &RecordBatch, sql: &str) -> Vec<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let batches = runtime.block_on(async {
        let context = SessionContext::new();
        context
            .register_batch("orders", batch.clone())
            .expect("a table");
        context
            .sql(sql)
            .await
            .expect("a query")
            .collect()
            .await
            .expect("rows")
    });
    let mut writer = datafusion::arrow::json::ArrayWriter::new(Vec::new());
    writer
        .write_batches(&batches.iter().collect::<Vec<_>>())
        .expect("json");
    writer.finish().expect("json");
    serde_json::from_slice(&writer.into_inner()).expect("json")
}

/// Rows of published Parquet files, as the text of a query over them.
pub(crate) fn read_parquet(folder: &Path, sql: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let batches = runtime.block_on(async {
        let context = SessionContext::new();
        let mut paths: Vec<String> = names(folder)
            .into_iter()
            .filter(|name| name.ends_with(".parquet"))
            .map(|name| folder.join(name).display().to_string())
            .collect();
        paths.sort();
        let frame = context
            .read_parquet(paths, Default::default())
            .await
            .expect("files");
        context
            .register_table("t", frame.into_view())
            .expect("a table");
        context
            .sql(sql)
            .await
            .expect("a query")
            .collect()
            .await
            .expect("rows")
    });
    let text = datafusion::arrow::util::pretty::pretty_format_batches(&batches).expect("text");
    text.to_string().lines().map(str::to_owned).collect()
}

/// Names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}
