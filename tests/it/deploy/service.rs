//! The systemd unit, the Debian package and the pipelines next to them.

use std::fs;

use crate::support::{TestDir, usercom_sink};

use super::{root, text};

const UNIT: &str = "deploy/systemd/usercom-sink.service";

/// The values of a key of the unit.
fn unit(key: &str) -> Vec<String> {
    let prefix = format!("{key}=");
    text(UNIT).lines().filter_map(|line| Some(line.strip_prefix(&prefix)?.to_owned())).collect()
}

#[test]
fn unit_reads_and_writes_what_its_pipeline_names() {
    // The pipeline next to the unit keeps its state where the unit lets it write, and reads its key
    // where the unit puts it.
    let pipeline: toml::Table = toml::from_str(&text("deploy/systemd/pipeline.toml")).unwrap();
    let state = format!("/var/lib/{}", unit("StateDirectory")[0]);
    assert_eq!(pipeline["data_dir"].as_str(), Some(state.as_str()));
    let credentials = unit("LoadCredential");
    let (name, source) = credentials[0].split_once(':').unwrap();
    let key = format!("${{file:/run/credentials/usercom-sink.service/{name}}}");
    assert_eq!(pipeline["sinks"]["crm"]["api_key"].as_str(), Some(key.as_str()));
    let command = unit("ExecStart").remove(0);
    let config = unit("AssertPathExists").remove(0);
    assert!(command.contains(&format!("-c {config} ")), "{command}");
    assert!(source.starts_with("/etc/usercom-sink/"));
    let users = text("deploy/systemd/usercom-sink.sysusers");
    assert!(users.contains(&format!("\nu {} ", unit("User")[0])), "{users}");
}

#[test]
fn unit_restarts_after_every_end_but_one_that_needs_a_person() {
    // Exit codes of the program mean in the unit what they mean in the documentation, and systemd
    // waits longer than the program settles.
    assert_eq!(unit("Restart"), ["always"]);
    assert_eq!(unit("RestartPreventExitStatus"), ["2 78"]);
    assert_eq!(unit("SuccessExitStatus"), ["75"]);
    let place = TestDir::new();
    let broken = place.write("broken.toml", "data_dir = 1\n");
    let output = usercom_sink(&["run", "-c", broken.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(usercom_sink(&["run", "--no-such-option"]).status.code(), Some(2));
    let limit = usercom_sink::config::sink::DeliveryConfig::default().shutdown_timeout_secs;
    let wait: u64 = unit("TimeoutStopSec")[0].parse().unwrap();
    assert!(wait > limit + 10, "{wait} s for {limit} s");
}

#[test]
fn pipelines_of_the_kit_have_no_fault_and_pass_their_tests() {
    // Each pipeline in deploy/ is valid where its key files exist.
    for path in ["deploy/systemd/pipeline.toml", "deploy/kubernetes/pipeline.toml"] {
        let place = TestDir::new();
        let mut pipeline = text(path);
        for name in ["usercom-api-key", "write-key", "records-token", "page-token"] {
            place.write(name, "a-longer-secret\n");
        }
        for folder in ["/run/credentials/usercom-sink.service/", "/run/secrets/usercom-sink/"] {
            pipeline = pipeline.replace(folder, "");
        }
        let config = place.write("pipeline.toml", &pipeline);
        let config = config.to_str().unwrap();
        let output = usercom_sink(&["validate", "--no-environment", "-c", config]);
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{path}: {shown}");
        if pipeline.contains("[[tests]]") {
            let output = usercom_sink(&["test", "-c", config]);
            assert!(output.status.success(), "{path}: {output:?}");
        }
    }
}

#[test]
fn debian_package_names_files_that_exist() {
    // Every file of the package is there: the program once it is built, all others in the
    // repository.
    let manifest: toml::Table = toml::from_str(&text("Cargo.toml")).unwrap();
    let package = &manifest["package"]["metadata"]["deb"];
    let assets = package["assets"].as_array().unwrap();
    for asset in assets {
        let source = asset[0].as_str().unwrap();
        if source == "target/release/usercom-sink" {
            continue;
        }
        let found = glob::glob(root(source).to_str().unwrap()).unwrap().count();
        assert!(found > 0, "{source}");
    }
    let scripts = root(package["maintainer-scripts"].as_str().unwrap());
    assert!(fs::read_to_string(scripts.join("postinst")).unwrap().contains("#DEBHELPER#"));
    let units = &package["systemd-units"];
    let (folder, name) = (units["unit-scripts"].as_str(), units["unit-name"].as_str());
    assert!(root(folder.unwrap()).join(format!("{}.service", name.unwrap())).is_file());
}

#[test]
fn package_ships_no_test_data_and_names_its_licences() {
    // What `include` selects holds sources, documentation and the kit; tests, benches, fuzzing and
    // their data stay out.
    let manifest: toml::Table = toml::from_str(&text("Cargo.toml")).unwrap();
    let package = &manifest["package"];
    for key in ["repository", "documentation", "description", "readme"] {
        assert!(package[key].as_str().is_some_and(|value| !value.is_empty()), "{key}");
    }
    assert_eq!(package["license"].as_str(), Some("MIT OR Apache-2.0"));
    let included: Vec<&str> =
        package["include"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    for licence in ["/LICENSE-MIT", "/LICENSE-APACHE"] {
        assert!(included.contains(&licence) && root(&licence[1..]).is_file(), "{licence}");
    }
    for data in ["tests", "benches", "fuzz", "proptest-regressions", "connector"] {
        assert!(!included.iter().any(|path| path.trim_start_matches('/').starts_with(data)));
    }
}
