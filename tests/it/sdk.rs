//! Real SDKs against the program and a local User.com. `tests/sdk/install.sh` installs them; a test
//! whose SDK is not there says so, loudly, and passes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use usercom_sink::emulator::Faults;

use crate::http::free_port;
use crate::http::process::{Running, eventually, pipeline};
use crate::support::{EmulatorAccount, TestDir};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

/// A command that runs a script with an SDK, or `None` where the SDK is not installed.
fn sdk(runtime: &str, script: &str, module: &str) -> Option<Command> {
    let folder = folder();
    let program = match runtime {
        "python" => folder.join("venv/bin/python"),
        other => PathBuf::from(other),
    };
    let runs = Command::new(&program).arg("--version").output();
    if !runs.is_ok_and(|output| output.status.success()) || !is_installed(&folder, module) {
        // Past the harness, which keeps what passing tests print to itself.
        let line =
            format!("SKIPPED: {script} needs {runtime} and {module}: run tests/sdk/install.sh\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    }
    let mut command = Command::new(program);
    command.arg(folder.join(script)).current_dir(folder);
    Some(command)
}

fn is_installed(folder: &Path, module: &str) -> bool {
    let pattern = folder.join("venv/lib/python3*/site-packages").join(module);
    let in_venv = glob::glob(pattern.to_str().unwrap()).unwrap().next().is_some();
    in_venv || folder.join("node_modules").join(module).is_dir()
}

/// Runs an SDK that sends one of each call, and looks at what landed.
async fn lands(command: Option<Command>, arguments: &[&str]) {
    let Some(mut command) = command else {
        return;
    };
    let account = EmulatorAccount::open(Faults::default()).await;
    let place = TestDir::new();
    let port = free_port();
    let config = pipeline(&place, &account.endpoint(), port, "buffer.type = \"disk\"");
    let running = Running::start(&config, port);
    command.arg(format!("http://127.0.0.1:{port}")).arg("wk").args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    eventually("the user has a company, two page views and two events", || async {
        let companies = account.all("companies/").await;
        let user = account.get("users-by-id/u1/").await;
        let events = account.get("users-by-id/u1/events/").await;
        companies.len() == 1
            && user["page_views"] == 2
            && events["results"].as_array().is_some_and(|e| e.len() == 2)
    })
    .await;
    let user = account.get("users-by-id/u1/").await;
    assert_eq!(user["email"], "ada@example.com", "{user}");
    let mut names: Vec<String> = account
        .all("users-by-id/u1/events/")
        .await
        .iter()
        .map(|event| event["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["Bought", "Looked"], "the guest's event came over with the alias");
    assert_eq!(account.get("users-by-id/guest/").await.get("id"), None);
    assert_eq!(account.all("companies/").await[0]["name"], json!("Acme"));
    drop(running);
    account.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segment_for_node() {
    // Each call of Segment's SDK for Node lands at User.com.
    lands(sdk("node", "segment.mjs", "@segment/analytics-node"), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rudderstack_for_node() {
    // Each call of RudderStack's SDK for Node, which packs its bodies, lands at User.com.
    lands(sdk("node", "rudderstack.mjs", "@rudderstack/rudder-sdk-node"), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segment_for_python() {
    // Each call of Segment's SDK for Python lands at User.com, packed or not.
    for arguments in [&[][..], &["gzip"]] {
        lands(sdk("python", "segment_python.py", "segment/analytics"), arguments).await;
    }
}
