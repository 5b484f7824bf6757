//! The Kubernetes manifests fit together, and to the pipeline they run.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{text, yaml};

const FOLDER: &str = "deploy/kubernetes";

fn manifest(name: &str) -> Value {
    yaml(&format!("{FOLDER}/{name}"))
}

/// The entry of a list that has this `name`.
fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let entries = list.as_array().unwrap();
    entries
        .iter()
        .find(|entry| entry["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {list}"))
}

#[test]
fn names_in_manifests_refer_to_what_exists() {
    // Selectors, ports, volumes and files that one manifest names are there in the others.
    let (set, service) = (manifest("statefulset.yaml"), manifest("service.yaml"));
    let monitor = manifest("monitoring/servicemonitor.yaml");
    let secret = manifest("secret.example.yaml");
    let spec = &set["spec"];
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(&spec["selector"]["matchLabels"], labels);
    assert_eq!(&service["spec"]["selector"], labels);
    assert_eq!(spec["serviceName"], service["metadata"]["name"]);

    let pod = &spec["template"]["spec"];
    let container = named(&pod["containers"], "usercom-sink");
    for port in service["spec"]["ports"].as_array().unwrap() {
        let exposed = named(&container["ports"], port["targetPort"].as_str().unwrap());
        assert_eq!(exposed["containerPort"], port["port"]);
    }
    for (probe, path) in
        [("startupProbe", "/health"), ("livenessProbe", "/health"), ("readinessProbe", "/ready")]
    {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        named(&container["ports"], container[probe]["httpGet"]["port"].as_str().unwrap());
    }
    let endpoint = &monitor["spec"]["endpoints"][0];
    named(&service["spec"]["ports"], endpoint["port"].as_str().unwrap());

    let mut volumes: BTreeSet<&str> = BTreeSet::new();
    volumes.extend(pod["volumes"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()));
    let claims = spec["volumeClaimTemplates"].as_array().unwrap();
    volumes.extend(claims.iter().map(|claim| claim["metadata"]["name"].as_str().unwrap()));
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mounted: BTreeSet<&str> = mounts.iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(volumes, mounted);
    let keys = &named(&pod["volumes"], "keys")["secret"];
    assert_eq!(keys["secretName"], secret["metadata"]["name"]);

    let kustomization = manifest("kustomization.yaml");
    let generated = &kustomization["configMapGenerator"][0];
    assert_eq!(named(&pod["volumes"], "pipeline")["configMap"]["name"], generated["name"]);
    assert_eq!(container["image"], kustomization["images"][0]["name"]);
    let listed = kustomization["resources"].as_array().unwrap();
    for name in listed.iter().chain(generated["files"].as_array().unwrap()) {
        text(&format!("{FOLDER}/{}", name.as_str().unwrap()));
    }
}

#[test]
fn pipeline_uses_the_folders_ports_and_keys_of_the_pod() {
    // The pipeline writes into the volume, listens where the pod's ports are, and reads keys that
    // the secret has.
    let set = manifest("statefulset.yaml");
    let pod = &set["spec"]["template"]["spec"];
    let container = named(&pod["containers"], "usercom-sink");
    let pipeline_text = text(&format!("{FOLDER}/pipeline.toml"));
    let pipeline: toml::Table = toml::from_str(&pipeline_text).unwrap();
    let mount = |name: &str| named(&container["volumeMounts"], name)["mountPath"].as_str().unwrap();
    assert_eq!(pipeline["data_dir"].as_str(), Some(mount("data")));
    let config = container["args"][2].as_str().unwrap();
    assert_eq!(config, format!("{}/pipeline.toml", mount("pipeline")));
    for (port, address) in [
        ("api", pipeline["api"]["listen"].as_str().unwrap()),
        ("records", pipeline["sources"]["sdk"]["address"].as_str().unwrap()),
    ] {
        let port = &named(&container["ports"], port)["containerPort"];
        assert_eq!(address, format!("0.0.0.0:{port}"));
    }
    let secret = manifest("secret.example.yaml");
    let read: BTreeSet<&str> = pipeline_text
        .split("${file:")
        .skip(1)
        .map(|rest| rest.split_once('}').unwrap().0)
        .collect();
    let keys = secret["stringData"].as_object().unwrap();
    let given: BTreeSet<String> =
        keys.keys().map(|key| format!("{}/{key}", mount("keys"))).collect();
    assert_eq!(read, given.iter().map(String::as_str).collect());
}

#[test]
fn pod_has_more_time_to_end_than_the_pipeline_takes() {
    // Kubernetes waits longer than the program's own limit, so that it never kills it while it
    // settles records.
    let set = manifest("statefulset.yaml");
    let grace = set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    let limit = usercom_sink::config::sink::DeliveryConfig::default().shutdown_timeout_secs;
    assert!(grace > limit + 10, "{grace} s for {limit} s");
}
