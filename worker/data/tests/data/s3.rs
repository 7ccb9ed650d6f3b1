//! Sources, work folders and sinks in an object store, against a server that speaks S3.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::{Bench, orders, to_csv, to_parquet, whole_query};

const MAP: &str = "SELECT region, sum(price) AS s, count(*) AS n FROM orders GROUP BY region";
const REDUCE: &str =
    "SELECT region, sum(s) AS revenue, sum(n) AS orders FROM parts GROUP BY region ORDER BY region";
const WHOLE: &str = "SELECT region, sum(price) AS revenue, count(*) AS orders FROM orders GROUP BY region ORDER BY region";

/// A private server with a bucket called `lake`.
struct Server {
    process: Child,
    endpoint: String,
    runtime: Runtime,
    store: Arc<AmazonS3>,
}

impl Server {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3_server.sh");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("s3");
        let installed = Command::new(script)
            .arg(folder)
            .output()
            .expect("the script runs");
        assert!(
            installed.status.success(),
            "{}",
            String::from_utf8_lossy(&installed.stderr)
        );
        let program = String::from_utf8(installed.stdout).expect("a path");
        let mut process = Command::new(program.trim())
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut log = BufReader::new(process.stderr.take().expect("a pipe"));
        let address = loop {
            let mut line = String::new();
            assert_ne!(
                log.read_line(&mut line).expect("its log"),
                0,
                "the server ended"
            );
            if let Some((_, address)) = line.split_once("Running on http://") {
                break address
                    .trim()
                    .trim_end_matches(|c: char| !c.is_ascii_digit())
                    .to_owned();
            }
        };
        // It logs every request; a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));

        let mut connection = TcpStream::connect(&address).expect("the server listens");
        let credential = "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x";
        write!(
            connection,
            "PUT /lake HTTP/1.1\r\nHost: {address}\r\nAuthorization: {credential}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .expect("a request");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains(" 200 "), "{answer}");

        let endpoint = format!("http://{address}");
        let store = AmazonS3Builder::new()
            .with_endpoint(&endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .with_bucket_name("lake")
            .build()
            .expect("a client");
        Self {
            process,
            endpoint,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
            store: Arc::new(store),
        }
    }

    fn bench(&self) -> Bench {
        let mut bench = Bench::new();
        bench.work = "s3://lake/work".to_owned();
        bench.env = [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ENDPOINT_URL", &self.endpoint),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
        bench
    }

    fn put(&self, key: &str, content: Vec<u8>) {
        self.runtime
            .block_on(self.store.put(&key.into(), content.into()))
            .expect("stored");
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        let found: Vec<_> = self
            .runtime
            .block_on(self.store.list(Some(&prefix.into())).try_collect())
            .expect("a list");
        let mut names: Vec<String> = found
            .iter()
            .map(|meta| {
                meta.location
                    .as_ref()
                    .trim_start_matches(prefix)
                    .trim_start_matches('/')
                    .to_owned()
            })
            .collect();
        names.sort();
        names
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn everything_in_an_object_store() {
    let server = Server::start();
    let bench = server.bench();
    for (name, first, rows) in [("a", 0, 700), ("b", 700, 40)] {
        server.put(&format!("in/csv/{name}.csv"), to_csv(&orders(first, rows)));
        server.put(
            &format!("in/parquet/{name}.parquet"),
            to_parquet(&orders(first, rows), 100),
        );
    }
    server.put("in/csv/_SUCCESS", b"{}".to_vec());
    server.put("in/csv/deeper/c.csv", b"other,columns\n".to_vec());
    let expected = Value::from(whole_query(&orders(0, 740), WHOLE));

    for (format, path) in [
        ("csv", "s3://lake/in/csv/*.csv"),
        ("parquet", "s3://lake/in/**/*.parquet"),
    ] {
        let spec = json!({
            "sources": {"orders": {"format": format, "path": path}},
            "partitions": {"n": 3}, "map_sql": MAP, "reduce_sql": REDUCE,
        });
        let request = bench.up_to_commit(&spec, "run");
        assert_eq!(
            request["parts"].as_array().map(Vec::len),
            Some(3),
            "{format}"
        );
        assert_eq!(
            bench.commit(&request, None).ok()["rows"],
            expected,
            "{format}"
        );
    }

    let spec = json!({
        "sources": {"orders": {"format": "parquet", "path": "s3://lake/in/parquet/"}},
        "partitions": {"n": 2}, "map_sql": MAP, "reduce_sql": REDUCE,
        "sink": {"format": "csv", "path": "s3://lake/out/", "mode": "overwrite"},
    });
    server.put("out/old.csv", b"x\n".to_vec());
    for point in [
        "commit.staged",
        "commit.recorded",
        "commit.publishing",
        "commit.removing",
        "commit.marked",
    ] {
        if point == "commit.removing" {
            server.put("out/old.csv", b"x\n".to_vec());
        }
        let request = bench.up_to_commit(&spec, point);
        assert_eq!(bench.commit(&request, Some(point)).code, 137, "{point}");
        let result = bench.commit(&request, None).ok();
        assert_eq!(result["preview"], expected, "{point}");
        let mut names = server.names("out");
        names.retain(|name| !name.starts_with("_gristmill/"));
        assert_eq!(names.len(), 2, "{point}: {names:?}");
        assert_eq!(names[0], "_SUCCESS");
        assert_eq!(
            result["files"],
            json!([format!("s3://lake/out/{}", names[1])])
        );
        assert_eq!(bench.commit(&request, None).ok(), result, "{point}");
    }

    // The same bytes count, but it is another object: cuts planned for the old one are not to be trusted.
    let plan = bench.plan(&spec).ok();
    let mut other = to_parquet(&orders(0, 700), 100);
    other[20] ^= 1;
    server.put("in/parquet/a.parquet", other);
    let message = bench
        .part(&spec, &plan["partitions"][0])
        .failed(1, "input_changed");
    assert!(message.contains("replaced"), "{message}");

    let missing = json!({"sources": {"t": {"format": "csv", "path": "s3://lake/none/*.csv"}}, "map_sql": "SELECT 1"});
    let message = bench.plan(&missing).failed(1, "no_files");
    assert!(message.contains("s3://lake/none/*.csv"), "{message}");
    let no_bucket = json!({"sources": {"t": {"format": "csv", "path": "s3://nowhere/*.csv"}}, "map_sql": "SELECT 1"});
    bench.plan(&no_bucket).failed(4, "store");
}
