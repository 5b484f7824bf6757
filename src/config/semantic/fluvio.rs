//! Checks Fluvio sources.
//!
//! A disk buffer after one is accepted: partitions are assigned to a process by name, so no other
//! process waits for what its disk buffer holds.

use std::collections::HashSet;

use super::FaultCollector;
use crate::config::fault::{ConfigPath, Target};
use crate::config::source::{FluvioPartitions, FluvioSourceConfig, FluvioStart};

/// Faults of one Fluvio source, except its decoding. `path` is `sources.NAME`.
pub(super) fn check(
    faults: &mut FaultCollector<'_>,
    path: &ConfigPath,
    fluvio: &FluvioSourceConfig,
) {
    if let Some(endpoint) = &fluvio.endpoint
        && !is_endpoint(endpoint)
    {
        let message = format!("`{endpoint}` is not the address of a cluster");
        let help = "write `host:port`: `fluvio.example.com:9003`";
        faults.at("E0360", path.key("endpoint"), Target::Value, message, help);
    }
    if fluvio.endpoint.is_some() && fluvio.profile.is_some() {
        let message = "`endpoint` and `profile` both say where the cluster is";
        faults.at("E0360", path.key("profile"), Target::Key, message, "leave one of them out");
    }
    if !is_topic(&fluvio.topic) {
        let message = format!("{:?} cannot be a topic", fluvio.topic);
        let help = "at most 63 small letters, digits and `-`, with a letter or digit at both ends";
        faults.at("E0361", path.key("topic"), Target::Value, message, help);
    }
    partitions(faults, path, fluvio);
    if fluvio.consumer.as_ref().is_some_and(|name| name.trim().is_empty()) {
        let help = "name it after the pipeline, or leave `consumer` out";
        faults.at("E0362", path.key("consumer"), Target::Value, "the consumer has no name", help);
    }
    if fluvio.consumer.is_some() && !fluvio.offset.strategy.keeps() {
        let message = "`consumer` has no effect: `offset.strategy` is `none`";
        let help = "leave one of them out; without an offset every run begins at `offset.start`";
        faults.at("E0362", path.key("consumer"), Target::Key, message, help);
    }
    start(faults, path, &fluvio.offset.start);
    tls(faults, path, fluvio);
    for (index, transform) in fluvio.transforms.iter().enumerate() {
        if transform.uses.trim().is_empty() {
            let path = path.key("transforms").index(index).key("uses");
            let help = "name a SmartModule that `fluvio smartmodule list` shows";
            faults.at("E0365", path, Target::Value, "a SmartModule without a name", help);
        }
    }
}

/// `host:port` or `[address]:port`.
fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let named = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]%".contains(&b));
    named && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// What the cluster accepts as a topic's name.
pub(in crate::config) fn is_topic(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn partitions(faults: &mut FaultCollector<'_>, path: &ConfigPath, fluvio: &FluvioSourceConfig) {
    let path = path.key("partitions");
    let FluvioPartitions::List(numbers) = &fluvio.partitions else {
        return;
    };
    if numbers.is_empty() {
        let help = "write their numbers, or `partitions = \"all\"`";
        faults.at("E0363", path.clone(), Target::Value, "no partitions", help);
    }
    let mut seen = HashSet::new();
    for (index, number) in numbers.iter().enumerate() {
        if !seen.insert(number) {
            let message = format!("partition {number} is listed twice");
            let path = path.index(index);
            faults.at("E0363", path, Target::Value, message, "leave one of them out");
        } else if i32::try_from(*number).is_err() {
            let message = format!("{number} is not a partition");
            let path = path.index(index);
            faults.at("E0363", path, Target::Value, message, "partitions count from 0");
        }
    }
}

fn start(faults: &mut FaultCollector<'_>, path: &ConfigPath, start: &FluvioStart) {
    let FluvioStart::Place(place) = start else {
        return;
    };
    let given =
        [place.absolute.is_some(), place.from_beginning.is_some(), place.from_end.is_some()];
    if given.into_iter().filter(|given| *given).count() != 1 {
        let path = path.key("offset").key("start");
        let message = "a start by number is one of `absolute`, `from_beginning` and `from_end`";
        let help = "write one of them: `offset.start = { from_end = 100 }`";
        faults.at("E0364", path, Target::Value, message, help);
    }
}

fn tls(faults: &mut FaultCollector<'_>, path: &ConfigPath, fluvio: &FluvioSourceConfig) {
    let path = path.key("tls");
    let tls = &fluvio.tls;
    if !tls.enabled {
        return;
    }
    if fluvio.endpoint.is_none() {
        let message = "the profile says how its cluster is encrypted";
        let help = "write `endpoint` too, or leave `tls` out";
        faults.at("E0366", path.clone(), Target::Key, message, help);
    }
    for (key, given, what) in [
        ("domain", tls.domain.is_some(), "the name in the cluster's certificate"),
        ("ca_file", tls.ca_file.is_some(), "the authorities that are trusted, a PEM file"),
        ("crt_file", tls.crt_file.is_some(), "the client's certificate, a PEM file"),
        ("key_file", tls.key_file.is_some(), "the certificate's private key, a PEM file"),
    ] {
        if !given {
            let message = format!("TLS needs `{key}`");
            let help = format!("write `tls.{key} = \"…\"`: {what}");
            faults.at("E0366", path.key("enabled"), Target::Value, message, help);
        }
    }
}
