//! The whole program, as Fluvio's deployer calls it, with the real client.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use usercom_sink::buffer::{Access, Store};
use usercom_sink::emulator::Faults;

use crate::support::{EmulatorAccount, KEY, TestDir, binary};

const CONFIG: &str = "\
meta:
  version: 0.1.0
  name: my-crm
  type: usercom-sink
  topic: events
usercom:
  endpoint: ENDPOINT
  api_key: ${{ secrets.USERCOM_KEY }}
  preset: segment
";

/// A port where no process listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn connector(place: &TestDir, endpoint: &str, config: &str, more: &[&str]) -> Command {
    let config = place.write("config.yaml", &config.replace("ENDPOINT", endpoint));
    let secrets = place.write("secrets.txt", &format!("USERCOM_KEY={KEY}\n"));
    let profile = format!(
        "version = \"2\"\ncurrent_profile = \"local\"\n[profile.local]\ncluster = \"local\"\n\
         [cluster.local]\nendpoint = \"127.0.0.1:{}\"\n[cluster.local.tls]\n\
         tls_policy = \"disabled\"\n",
        closed_port()
    );
    let mut command = binary();
    command
        .current_dir(place.path())
        .args(["--config", config.to_str().unwrap(), "--secrets", secrets.to_str().unwrap()])
        .args(more)
        .env("FLV_PROFILE_PATH", place.write("profile.toml", &profile))
        .env("RUST_LOG", "info")
        .env_remove("USERCOM_SINK_DATA_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn terminate(child: &Child) {
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_cluster_is_retried_until_sigterm() {
    // The deployer's call works; a cluster that does not answer is asked again; SIGTERM ends the
    // waiting without an error; state is in the connector's own folder; no secret is logged.
    let (place, account) = (TestDir::new(), EmulatorAccount::open(Faults::default()).await);
    let mut child = connector(&place, &account.endpoint(), CONFIG, &[]).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(child.try_wait().unwrap().is_none(), "it runs on");
    terminate(&child);
    let status = child.wait().unwrap();
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(status.code(), Some(0), "{told}");
    assert!(told.contains("the cluster did not answer; the request is repeated"), "{told}");
    assert!(told.contains("cannot connect to"), "{told}");
    assert!(!told.contains(KEY), "{told}");
    assert!(place.path().join("my-crm-data").is_dir());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_waits_for_its_predecessor() {
    // `cdk deploy shutdown` and `start` at once: the new process waits for the folder of the old one,
    // says whom it waits for, and runs once that is gone; within the time a shutdown may take.
    let (place, account) = (TestDir::new(), EmulatorAccount::open(Faults::default()).await);
    let config = CONFIG.replace(
        "  preset: segment",
        "  preset: segment\n  delivery: { shutdown_timeout_secs: 3 }",
    );
    for frees in [true, false] {
        let folder = place.path().join("my-crm-data");
        let predecessor = Store::open(&folder, Access::Owner).unwrap();
        let mut child = connector(&place, &account.endpoint(), &config, &[]).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(2));
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        if frees {
            predecessor.close().await;
            std::thread::sleep(Duration::from_secs(3));
            terminate(&child);
        }
        let status = child.wait().unwrap();
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        let in_use = format!("is in use by another usercom-sink (pid {})", std::process::id());
        assert!(
            told.contains(&in_use) && told.contains("waiting for the other process to end"),
            "{told}"
        );
        assert_eq!(status.code(), Some(i32::from(!frees)), "{told}");
        assert_eq!(
            told.contains("the cluster did not answer; the request is repeated"),
            frees,
            "{told}"
        );
    }
}

#[test]
fn invalid_config_ends_at_once() {
    // Faults are reported with their positions, and the exit code says that waiting would not help.
    let place = TestDir::new();
    let bad = CONFIG.replace("preset: segment", "preset: segmnt");
    let output = connector(&place, "http://127.0.0.1:9/", &bad, &[]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("config.yaml:9:11") && told.contains("did you mean"), "{told}");
    assert!(!told.contains(KEY), "{told}");
    assert!(!place.path().join("my-crm-data").exists(), "nothing is made");

    let output = connector(&place, "http://127.0.0.1:9/", CONFIG, &["--check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let output = binary().args(["--config", "/no/such.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_profile_is_named() {
    // Without a profile there is no cluster to wait for.
    let (place, account) = (TestDir::new(), EmulatorAccount::open(Faults::default()).await);
    let mut command = connector(&place, &account.endpoint(), CONFIG, &[]);
    let output = command.env("FLV_PROFILE_PATH", place.path().join("none")).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("no Fluvio profile"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipeline_source_retries_unreachable_cluster() {
    // The same source in a pipeline file, by address.
    let (place, account) = (TestDir::new(), EmulatorAccount::open(Faults::default()).await);
    let text = format!(
        "data_dir = \"{}/data\"\n[sources.app]\ntype = \"fluvio\"\nendpoint = \"127.0.0.1:{}\"\n\
         topic = \"events\"\n[sinks.crm]\ntype = \"usercom\"\ninputs = [\"app\"]\n\
         endpoint = \"{}\"\napi_key = \"{KEY}\"\npreset = \"segment\"\n",
        place.path().display(),
        closed_port(),
        account.endpoint(),
    );
    let config = place.write("pipeline.toml", &text);
    let mut command = binary();
    command.args(["run", "-c", config.to_str().unwrap()]).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(child.try_wait().unwrap().is_none(), "it runs on");
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
