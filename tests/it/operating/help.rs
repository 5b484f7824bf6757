//! Row 17: help, completions and manual pages.

use crate::support::{TestDir, binary, usercom_sink};

/// Every command, with the commands below it.
fn commands() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(command) = open.pop() {
        let text = help_of(&command);
        let below = text.lines().skip_while(|line| *line != "Commands:").skip(1);
        let names = below.take_while(|line| line.starts_with("  "));
        for name in names.filter_map(|line| line.split_whitespace().next()) {
            if name != "help" {
                let mut below = command.clone();
                below.push(name.to_owned());
                open.push(below);
            }
        }
        all.push(command);
    }
    all
}

fn help_of(command: &[String]) -> String {
    let output = binary().args(command).arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn f3_17_every_help_has_examples_and_no_global_options() {
    // Guarantees that each command shows how it is used, with options of its own only.
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        let text = help_of(&command);
        assert!(text.contains("Examples:\n  usercom-sink "), "{command:?}: {text}");
        let shows_global = text.contains("--log-format");
        assert_eq!(shows_global, command.is_empty(), "{command:?}: {text}");
        assert!(!text.contains("Possible values:"), "values on one line: {text}");
    }
    // Shown once, taken everywhere.
    let output = usercom_sink(&["schema", "--log-format", "json", "--color", "never"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn examples_of_every_help_parse() {
    // Guarantees that no example has an option that does not exist. `--help` at the end parses
    // what is before it.
    for command in commands() {
        let text = help_of(&command);
        let examples = text.lines().skip_while(|line| *line != "Examples:").skip(1);
        for line in examples.take_while(|line| line.starts_with("  ")) {
            let program = line.trim().rsplit("| ").find(|part| part.contains("usercom-sink"));
            let words = program.or(Some(line)).unwrap().split_whitespace();
            let words: Vec<&str> = words
                .skip_while(|word| *word != "usercom-sink")
                .skip(1)
                .take_while(|word| !["|", ">"].contains(word))
                .collect();
            let mut options = words.iter().filter(|word| word.starts_with("--"));
            let own = help_of(
                &words
                    .iter()
                    .take_while(|word| {
                        !word.starts_with('-')
                            && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
                    })
                    .take(2)
                    .filter(|word| is_command(word))
                    .map(|word| (*word).to_owned())
                    .collect::<Vec<_>>(),
            );
            assert!(options.all(|option| own.contains(option)), "{line}: {own}");
        }
    }
}

fn is_command(word: &str) -> bool {
    !["bash", "zsh", "fish"].contains(&word)
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    // Guarantees completions for each shell and a page for each command, made from the command line.
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = usercom_sink(&["completions", shell]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(text.contains("dead-letters") && text.contains("log-format"), "{shell}");
    }
    let place = TestDir::new();
    let folder = place.path().to_str().unwrap();
    assert_eq!(usercom_sink(&["man", "--out", folder]).status.code(), Some(0));
    let main = std::fs::read_to_string(place.path().join("usercom-sink.1")).unwrap();
    assert!(main.contains("log\\-format"), "{main}");
    for page in ["usercom-sink-run.1", "usercom-sink-dead-letters-list.1"] {
        let text = std::fs::read_to_string(place.path().join(page)).unwrap();
        assert!(text.contains("Examples"), "{text}");
    }
    let output = usercom_sink(&["man"]);
    assert!(String::from_utf8(output.stdout).unwrap().starts_with(".ie"));
}
