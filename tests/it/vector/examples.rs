//! The files of `examples/vector` run as they are: through a stock Vector where the environment
//! variable `VECTOR_BIN` names one, and always against what is known of Vector's settings.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use usercom_sink::emulator::Faults;

use super::*;
use crate::support::{EmulatorAccount, KEY, TestDir, binary};

const EXAMPLES: [(&str, &str); 3] = [
    ("grpc", include_str!("../../../examples/vector/grpc.toml")),
    ("http", include_str!("../../../examples/vector/http.toml")),
    ("exec", include_str!("../../../examples/vector/exec.toml")),
];

/// Options of the components that the examples use, as Vector 0.58 knows them.
fn options(kind: &str) -> &'static [&'static str] {
    match kind {
        "file" => &["include", "exclude", "offset_key", "file_key", "read_from"],
        "remap" => &["inputs", "source", "drop_on_error", "drop_on_abort"],
        "vector" => &["inputs", "address", "compression", "batch", "request", "buffer", "tls"],
        "http" => &[
            "inputs",
            "uri",
            "method",
            "compression",
            "encoding",
            "framing",
            "batch",
            "request",
            "buffer",
            "auth",
            "tls",
            "retry_strategy",
        ],
        "console" => &["inputs", "target", "encoding"],
        other => panic!("no example uses `{other}` so far: add its options here"),
    }
}

/// The components under a key: name, type, settings.
fn components<'t>(file: &'t toml::Table, key: &str) -> Vec<(&'t str, &'t str, &'t toml::Table)> {
    let all = file.get(key).and_then(toml::Value::as_table);
    let settings = |name: &'t String, value: &'t toml::Value| {
        let table = value.as_table().unwrap();
        (name.as_str(), table["type"].as_str().unwrap(), table)
    };
    all.into_iter().flatten().map(|(name, value)| settings(name, value)).collect()
}

#[test]
fn examples_use_settings_of_vector() {
    // Guarantees, without a Vector: known options, inputs that exist, a data folder that exists
    // wherever it is started, order, retries that drop nothing, parsed events with an id.
    for (name, text) in EXAMPLES {
        let file: toml::Table = toml::from_str(text).unwrap();
        assert_eq!(file["data_dir"].as_str(), Some("."), "{name}: Vector does not create folders");
        let (sources, transforms) = (components(&file, "sources"), components(&file, "transforms"));
        let sinks = components(&file, "sinks");
        let names: Vec<&str> =
            sources.iter().chain(&transforms).map(|(component, ..)| *component).collect();
        for (component, kind, settings) in sources.iter().chain(&transforms).chain(&sinks) {
            for option in settings.keys().filter(|option| *option != "type") {
                assert!(options(kind).contains(&option.as_str()), "{name}: {component}.{option}");
            }
            for input in
                settings.get("inputs").and_then(toml::Value::as_array).into_iter().flatten()
            {
                assert!(names.contains(&input.as_str().unwrap()), "{name}: {component}: {input}");
            }
        }
        let [(_, kind, sink)] = sinks[..] else { panic!("{name}: one sink") };
        assert_eq!(sink["inputs"][0].as_str(), Some("parsed"), "{name}");
        let program = transforms[0].2["source"].as_str().unwrap();
        assert!(program.contains("parse_json!(.message)") && program.contains(".offset"), "{name}");
        assert_eq!(sources[0].2["offset_key"].as_str(), Some("offset"), "{name}");
        if kind != "console" {
            assert_eq!(sink["request"]["concurrency"].as_str(), Some("none"), "{name}");
            assert_eq!(file["acknowledgements"]["enabled"].as_bool(), Some(true), "{name}");
        }
        if kind == "http" {
            assert_eq!(sink["retry_strategy"]["type"].as_str(), Some("all"), "{name}");
        }
    }
}

/// A program that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The pipeline that goes with an example.
fn pipeline(place: &TestDir, example: &str, endpoint: &str, port: u16) -> std::path::PathBuf {
    let dir = place.path().display();
    let text = match example {
        "grpc" => include_str!("../../../examples/07-vector.toml").to_owned(),
        "http" => include_str!("../../../examples/06-http-segment.toml").to_owned(),
        _ => {
            "data_dir = \"data\"\n[sources.in]\ntype = \"stdin\"\n[sinks.crm]\ntype = \"usercom\"\n\
             inputs = [\"in\"]\nendpoint = \"http://127.0.0.1:8765/api/public/\"\n\
             api_key = \"${USERCOM_API_KEY:-emulator}\"\npreset = \"segment\"\n\
             buffer.type = \"disk\"\n"
                .to_owned()
        }
    };
    let text = text
        .replace("\"./data/", &format!("\"{dir}/data/"))
        .replace("\"data\"", &format!("\"{dir}/data\""))
        .replace("http://127.0.0.1:8765/api/public/", endpoint)
        .replace("127.0.0.1:6000", &format!("127.0.0.1:{port}"))
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
    place.write("pipeline.toml", &text)
}

/// Runs one example through a stock Vector; it is killed and started again in the middle.
async fn run(vector: &Path, example: &str, text: &str) {
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let port = free_port().await;
    let config = pipeline(&place, example, &account.endpoint(), port);
    let text = text
        .replace("127.0.0.1:6000", &format!("127.0.0.1:{port}"))
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
    let vector_config = place.write("vector.toml", &text);
    std::fs::create_dir(place.path().join("logs")).unwrap();
    let lines: String = (0..200)
        .map(|n| match example {
            "grpc" => json!({ "kind": "export", "user_id": format!("u{}", n % 7), "rows": n }),
            _ => json!({ "type": "track", "userId": format!("u{}", n % 7), "event": "Step", "properties": { "n": n } }),
        })
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(place.path().join("logs/app-1.ndjson"), lines).unwrap();
    let mut sink = binary();
    sink.args(["run", "-c", config.to_str().unwrap()]).env("USERCOM_API_KEY", KEY);
    sink.current_dir(place.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start_vector = |stdout: Stdio| {
        let mut vector = Command::new(vector);
        vector.args(["--quiet", "--config", vector_config.to_str().unwrap()]);
        vector.current_dir(place.path()).stdout(stdout).stderr(Stdio::null());
        Running(vector.spawn().unwrap())
    };
    let mut _sink;
    if example == "exec" {
        let mut vector = start_vector(Stdio::piped());
        let pipe = vector.0.stdout.take().unwrap();
        _sink = Running(sink.stdin(pipe).spawn().unwrap());
        arrived(&account, example).await;
        drop(vector);
    } else {
        _sink = Running(sink.spawn().unwrap());
        let first = start_vector(Stdio::null());
        tokio::time::sleep(Duration::from_millis(1500)).await;
        drop(first);
        let _second = start_vector(Stdio::null());
        arrived(&account, example).await;
    }
    account.close().await;
}

/// Waits until all events are there, and a while longer: none comes twice.
async fn arrived(account: &EmulatorAccount, example: &str) {
    let count = async || account.admin("stats").await["events"].as_u64().unwrap();
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while count().await < 200 {
        assert!(tokio::time::Instant::now() < end, "{example}: {} of 200", count().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(count().await, 200, "{example}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_run_with_stock_vector() {
    // Guarantees that each example, run as it is (but for ports), delivers every line once, also
    // where Vector is killed on the way.
    let Some(vector) = std::env::var_os("VECTOR_BIN") else {
        println!(
            "SKIPPED: set VECTOR_BIN to a Vector of 0.56 or later to run examples/vector through it"
        );
        return;
    };
    for (example, text) in EXAMPLES {
        run(Path::new(&vector), example, text).await;
        println!("examples/vector/{example}.toml: 200 of 200, none twice");
    }
}
