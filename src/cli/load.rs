//! Loads pipeline files for the commands.

use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{Exit, eprint, fail, printable};
use crate::config::fault::{ConfigPath, Fault};
use crate::config::sink::UsercomSink;
use crate::config::{
    Environment, Loaded, OfflineEnvironment, Pipeline, ProcessEnvironment, Report, SourceText,
    Style, load,
};
use crate::sink::SinkFactory;
use crate::suggest::nearest;

/// The pipeline files of a command.
#[derive(Debug, Args)]
pub(super) struct ConfigFiles {
    /// Pipeline file (TOML, JSON or YAML); several files are merged
    #[arg(short, long = "config", required = true, value_name = "FILE")]
    pub(super) config: Vec<PathBuf>,
}

impl ConfigFiles {
    /// Reads and checks the files; every fault goes to stderr.
    pub(super) fn load(&self, style: Style) -> Result<Loaded, Exit> {
        self.load_with(&ProcessEnvironment, style)
    }

    /// As [`load`](Self::load), for commands that use no network: a missing secret is a warning.
    pub(super) fn load_offline(&self, style: Style) -> Result<Loaded, Exit> {
        self.load_with(&OfflineEnvironment, style)
    }

    /// As [`load`](Self::load), but prints nothing.
    pub(super) fn try_load(&self, environment: &dyn Environment) -> Result<Loaded, Report> {
        self.read().and_then(|texts| load_texts(&texts, environment))
    }

    fn load_with(&self, environment: &dyn Environment, style: Style) -> Result<Loaded, Exit> {
        match self.try_load(environment) {
            Ok(loaded) => {
                show_warnings(&loaded, style);
                Ok(loaded)
            }
            Err(report) => {
                eprint(&report.render(style));
                Err(Exit::BadConfig)
            }
        }
    }

    /// The files as options of a command line.
    pub(super) fn as_arguments(&self) -> String {
        let options = self.config.iter().map(|path| format!("-c {}", shell_word(path)));
        options.collect::<Vec<_>>().join(" ")
    }

    /// Reads the files.
    pub(super) fn read(&self) -> Result<Vec<SourceText>, Report> {
        self.config.iter().map(|path| SourceText::read(path)).collect()
    }
}

/// Reports a sink that the pipeline does not have.
pub(super) fn unknown_sink(pipeline: &Pipeline, name: &str) -> Exit {
    let known = || pipeline.sinks.keys().map(String::as_str);
    let near = match nearest(name, known()) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!("; the sinks are {}", known().collect::<Vec<_>>().join(", ")),
    };
    fail(&format!("there is no sink `{}`{near}", printable(name)));
    Exit::Usage
}

/// A path as a word of a shell.
fn shell_word(path: &Path) -> String {
    let text = printable(&path.to_string_lossy());
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Prints what may not be intended.
pub(super) fn show_warnings(loaded: &Loaded, style: Style) {
    if !loaded.warnings.is_empty() {
        eprint(&loaded.warnings.render(style));
    }
}

/// Checks everything about a pipeline that can be checked without input or output.
pub(super) fn load_texts(texts: &[SourceText], env: &dyn Environment) -> Result<Loaded, Report> {
    load(texts, env, &compile)
}

/// Faults of a sink's mapping.
pub(super) fn compile(at: &ConfigPath, sink: &UsercomSink) -> Vec<Fault> {
    sink.validate(at).err().unwrap_or_default()
}
