//! Command lines without a command: Fluvio's deployer calls `usercom-sink --config PATH
//! [--secrets PATH]`.

use std::ffi::OsString;

/// The command line with its command: a call of the deployer becomes one of `connector`.
pub(super) fn with_command(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let first = arguments.get(1).map(|first| first.to_string_lossy().into_owned());
    let from_deployer = first.is_some_and(|first| {
        let name = first.split_once('=').map_or(first.as_str(), |(name, _)| name);
        matches!(name, "--config" | "--secrets")
    });
    if from_deployer {
        arguments.insert(1, "connector".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployer_arguments_select_connector_command() {
        // Guarantees that only a call that begins with the deployer's options gets a command.
        let command = |arguments: &[&str]| {
            let arguments = ["usercom-sink"].iter().chain(arguments);
            let made = with_command(arguments.map(OsString::from));
            made.get(1).map(|command| command.to_string_lossy().into_owned())
        };
        for deployed in [&["--config", "a.yaml"][..], &["--config=a.yaml"], &["--secrets", "s"]] {
            assert_eq!(command(deployed).as_deref(), Some("connector"));
        }
        assert_eq!(command(&["run", "--config", "a"]).as_deref(), Some("run"));
        assert_eq!(command(&["--configure"]).as_deref(), Some("--configure"));
        assert_eq!(command(&[]), None);
    }
}
