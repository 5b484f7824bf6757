//! Checks sources: globs, codecs and their settings.

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::Regex;

use super::FaultCollector;
use crate::coerce::zone;
use crate::config::fault::{ConfigPath, Target};
use crate::config::foreign_keys::absent_source;
use crate::config::recover::RecoveredParts;
use crate::config::source::{
    Codec, Decoding, DecodingStep, FileSourceConfig, MultilineConfig, SourceConfig,
};
use crate::config::suggest::{list, regex_fault};

/// Faults of one source.
pub(super) fn check(faults: &mut FaultCollector<'_>, name: &str, source: &SourceConfig) {
    let path = ConfigPath::default().key("sources").key(name);
    compiled_out(faults, &path, source);
    timezone(faults, &path, source);
    match source {
        SourceConfig::File(file) => {
            globs(faults, &path, file);
            decoding(faults, &path.key("decoding"), &file.decoding);
            multiline(faults, &path.key("multiline"), file.multiline.as_ref());
        }
        SourceConfig::Http(http) => {
            super::http::check(faults, &path, http);
            decoding(faults, &path.key("decoding"), &http.decoding);
        }
        SourceConfig::Stdin(stdin) => {
            decoding(faults, &path.key("decoding"), &stdin.decoding);
            multiline(faults, &path.key("multiline"), stdin.multiline.as_ref());
        }
        SourceConfig::Vector(vector) => super::vector::check(faults, &path, vector),
        SourceConfig::Fluvio(fluvio) => {
            super::fluvio::check(faults, &path, fluvio);
            of_messages(faults, &path.key("decoding"), &fluvio.decoding);
        }
        SourceConfig::Kafka(kafka) => {
            super::kafka::check(faults, &path, kafka);
            of_messages(faults, &path.key("decoding"), &kafka.decoding);
        }
    }
}

/// Decoding of messages: none of them is the first line of a file.
fn of_messages(faults: &mut FaultCollector<'_>, path: &ConfigPath, of: &Decoding) {
    for (number, step) in of.steps().enumerate() {
        if step.codec == Codec::Csv && step.columns.is_none() {
            let message = "messages have no first line to name the columns of codec `csv`";
            let help = "name them: `decoding.columns = [\"…\"]`";
            let path = step_path(of, path, number).key("codec");
            faults.at("E0355", path, Target::Value, message, help);
        }
    }
    decoding(faults, path, of);
}

/// The path of a step in the file: a single table, or one of a list.
fn step_path(of: &Decoding, path: &ConfigPath, number: usize) -> ConfigPath {
    match of.then.is_empty() {
        true => path.clone(),
        false => path.index(number),
    }
}

/// The most faults before one that still gets a suggested zone name.
const MAX_SUGGESTED_FAULTS: usize = 100;

/// The zone of its times.
fn timezone(faults: &mut FaultCollector<'_>, path: &ConfigPath, source: &SourceConfig) {
    let Some(name) = source.timezone().filter(|name| zone::find(name).is_none()) else {
        return;
    };
    let message = format!("there is no time zone {name:?}");
    // Compares with every zone, so only for faults that are shown.
    let near =
        if faults.out.len() < MAX_SUGGESTED_FAULTS { zone::nearest(name) } else { Vec::new() };
    let help = match near.as_slice() {
        [] => "write an IANA name: Europe/Warsaw".to_owned(),
        near => format!("did you mean {}?", near.join(", ")),
    };
    faults.at("E0370", path.key("timezone"), Target::Value, message, help);
}

/// A type whose settings every build parses, but whose client only some builds contain.
fn compiled_out(faults: &mut FaultCollector<'_>, path: &ConfigPath, source: &SourceConfig) {
    let here = match source {
        SourceConfig::Fluvio(_) => cfg!(feature = "fluvio"),
        SourceConfig::Kafka(_) => cfg!(feature = "kafka"),
        SourceConfig::Vector(_) => cfg!(feature = "vector"),
        SourceConfig::File(_) | SourceConfig::Stdin(_) | SourceConfig::Http(_) => true,
    };
    if !here {
        let kind = source.kind();
        let message = format!("source type `{kind}` is not in this build");
        let help = absent_source(kind).unwrap_or("build with the cargo feature of that name");
        faults.at("E0106", path.key("type"), Target::Value, message, help);
    }
}

/// Standard input can have only one reader.
pub(super) fn only_one_stdin(faults: &mut FaultCollector<'_>, parts: &RecoveredParts) {
    let mut readers = parts
        .sources
        .iter()
        .filter(|(_, source)| matches!(source, SourceConfig::Stdin(_)))
        .map(|(name, _)| name);
    let Some(first) = readers.next() else {
        return;
    };
    for name in readers {
        let path = ConfigPath::default().key("sources").key(name);
        let message = format!("`{name}` and `{first}` both read standard input");
        let help = "keep one of them, and name it in the `inputs` of every sink that needs it";
        faults.at("E0321", path, Target::Key, message, help);
    }
}

fn globs(faults: &mut FaultCollector<'_>, path: &ConfigPath, file: &FileSourceConfig) {
    for (key, patterns) in [("include", &file.include), ("exclude", &file.exclude)] {
        for (index, pattern) in patterns.iter().enumerate() {
            let path = path.key(key).index(index);
            if pattern.is_empty() {
                let message = "an empty pattern matches no file";
                faults.at("E0310", path, Target::Value, message, "write a path or glob");
            } else if let Err(error) = glob::Pattern::new(pattern) {
                // The glob parser counts characters.
                let at = pattern.char_indices().nth(error.pos);
                let at = at.map_or(pattern.len(), |(byte, _)| byte);
                let target = Target::Part(at..pattern.len());
                let message = format!("bad glob: {}", error.msg);
                let help = "`*` is any part of a name, `**` any folders, `[ab]` one of some characters; `[[]` is a literal `[`";
                faults.at("E0310", path, target, message, help);
            }
        }
    }
}

fn decoding(faults: &mut FaultCollector<'_>, path: &ConfigPath, decoding: &Decoding) {
    for (number, settings) in decoding.steps().enumerate() {
        let path = step_path(decoding, path, number);
        step(faults, &path, settings);
        links(faults, &path, settings, number);
    }
}

/// Keys that only the first step has, or only later ones.
fn links(faults: &mut FaultCollector<'_>, path: &ConfigPath, step: &DecodingStep, number: usize) {
    for (key, written) in [("from", &step.from), ("into", &step.into)] {
        let Some(written) = written else {
            continue;
        };
        if number == 0 {
            let message = format!("`{key}` has no effect in the first step, which reads the line");
            let help = format!("leave `{key}` out, or put a step before this one");
            faults.at("W0302", path.key(key), Target::Key, message, help);
        }
        if !is_path_of_keys(written) {
            let message = format!("{written:?} is not a path of keys");
            let help = "write `.` and the key, such as `.message`, `.log.text` or `.\"odd key\"`";
            faults.at("E0371", path.key(key), Target::Value, message, help);
        }
    }
    let Some(charset) = &step.charset else {
        return;
    };
    if number > 0 {
        let message = "`charset` has no effect after the first step, which reads text";
        let help = "write it into the first step";
        faults.at("W0302", path.key("charset"), Target::Key, message, help);
    }
    if encoding_rs::Encoding::for_label_no_replacement(charset.as_bytes()).is_none()
        && !charset.eq_ignore_ascii_case("utf16")
    {
        let message = format!("unknown charset {charset:?}");
        let help = "write `utf-8`, `utf-16`, `latin1`, `iso-8859-2`, `windows-1250` or another name that browsers know";
        faults.at("E0372", path.key("charset"), Target::Value, message, help);
    }
}

/// The paths of decoding steps: `.`, or keys after dots, other keys in quotes.
fn is_path_of_keys(text: &str) -> bool {
    static PATH: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"^(\.|(\.([^."\[ ]+|"([^"\\]|\\.)+")){1,16})$"#).expect("a constant pattern")
    });
    PATH.is_match(text)
}

fn multiline(
    faults: &mut FaultCollector<'_>,
    path: &ConfigPath,
    settings: Option<&MultilineConfig>,
) {
    let Some(settings) = settings else {
        return;
    };
    for (key, text) in [
        ("start_pattern", &settings.start_pattern),
        ("condition_pattern", &settings.condition_pattern),
    ] {
        if let Err(error) = Regex::new(text) {
            let message = format!("bad regular expression: {}", regex_fault(&error));
            let help = "in TOML, single quotes keep backslashes as they are: `'^\\s'`";
            faults.at("E0311", path.key(key), Target::Value, message, help);
        }
    }
}

fn step(faults: &mut FaultCollector<'_>, path: &ConfigPath, step: &DecodingStep) {
    let codec = step.codec;
    match (&step.pattern, codec) {
        (Some(text), Codec::Regex) => pattern(faults, path.key("pattern"), text),
        (None, Codec::Regex) if !faults.has(&path.key("pattern")) => {
            let message = "codec `regex` needs a `pattern`";
            let help = "write `decoding.pattern = '^(?P<name>…)'`: its named groups become fields";
            faults.at("E0312", path.key("codec"), Target::Value, message, help);
        }
        (Some(_), _) => without_effect(faults, path, "pattern", Codec::Regex),
        _ => {}
    }
    if step.columns.is_some() && codec != Codec::Csv {
        without_effect(faults, path, "columns", Codec::Csv);
    }
    if let Some(columns) = &step.columns {
        self::columns(faults, path, columns);
    }
    if let Some(delimiter) = &step.delimiter {
        if codec != Codec::Csv {
            without_effect(faults, path, "delimiter", Codec::Csv);
        }
        // The CSV reader separates at single bytes; a quote or line break has its own meaning
        // there.
        let one = delimiter.len() == 1 && !["\"", "\n", "\r"].contains(&delimiter.as_str());
        if !one {
            let path = path.key("delimiter");
            let message = format!("delimiter {delimiter:?} is not one ASCII character");
            let help = "write one, such as `;`, `|` or `\\t`";
            faults.at("E0313", path, Target::Value, message, help);
        }
    }
}

fn columns(faults: &mut FaultCollector<'_>, path: &ConfigPath, columns: &[String]) {
    let path = path.key("columns");
    if columns.is_empty() {
        let help = "name them, or leave `columns` out: then the first line names them";
        faults.at("E0322", path.clone(), Target::Value, "no columns", help);
    }
    let mut seen = HashSet::new();
    for (index, column) in columns.iter().enumerate() {
        if !seen.insert(column) {
            let message = format!("column {column:?} is listed twice");
            let help = "give every column its own name";
            faults.at("E0322", path.index(index), Target::Value, message, help);
        }
    }
}

fn pattern(faults: &mut FaultCollector<'_>, path: ConfigPath, text: &str) {
    match Regex::new(text) {
        Err(error) => {
            let message = format!("bad regular expression: {}", regex_fault(&error));
            let help = "in TOML, single quotes keep backslashes as they are: `'\\d+'`";
            faults.at("E0311", path, Target::Value, message, help);
        }
        Ok(regex) if regex.capture_names().flatten().next().is_none() => {
            let message = "the pattern has no named groups, so its records would be empty";
            let help = "name the groups that become fields: `(?P<status>\\d+)`";
            faults.at("E0311", path, Target::Value, message, help);
        }
        Ok(_) => {}
    }
}

fn without_effect(faults: &mut FaultCollector<'_>, path: &ConfigPath, key: &str, codec: Codec) {
    let word = codec.as_str();
    let message = format!("{} has no effect with this codec", list([key], "and"));
    let help = format!("write `decoding.codec = \"{word}\"`, or leave `{key}` out");
    faults.at("W0302", path.key(key), Target::Key, message, help);
}
