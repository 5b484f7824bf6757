//! The difference between two pipeline files: which sources and sinks end, and which start.

use std::collections::BTreeSet;
use std::fmt;

use super::parts::taken_sources;
use crate::api::PlaygroundText;
use crate::config::{Fingerprints, Loaded, Pipeline, Report, SinkConfig as SinkSettings};

/// The settings of a running pipeline.
pub(super) struct RunSettings {
    pub(super) pipeline: Pipeline,
    pub(super) fingerprints: Fingerprints,
    /// Its files, without their secrets.
    pub(super) files: Vec<PlaygroundText>,
}

impl From<Loaded> for RunSettings {
    fn from(loaded: Loaded) -> Self {
        let files = shown_files(&loaded.warnings);
        Self { pipeline: loaded.pipeline, fingerprints: loaded.fingerprints, files }
    }
}

/// The files of a report, without their secrets.
pub(super) fn shown_files(report: &Report) -> Vec<PlaygroundText> {
    let files = report.files();
    files.map(|(name, text)| PlaygroundText { name: name.into(), text: text.into() }).collect()
}

/// Names of sources and sinks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PartNames {
    pub(super) sources: BTreeSet<String>,
    pub(super) sinks: BTreeSet<String>,
}

/// Parts that end and parts that start. A changed part is in both.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) removed: PartNames,
    pub(super) added: PartNames,
}

impl Changes {
    pub(super) fn between(old: &RunSettings, new: &RunSettings) -> Self {
        let (had, has) = (taken_sources(&old.pipeline), taken_sources(&new.pipeline));
        let same_source = |name: &str| {
            had.contains(name)
                && has.contains(name)
                && old.fingerprints.same_source(&new.fingerprints, name)
        };
        let same_sink = |name: &str| old.fingerprints.same_sink(&new.fingerprints, name);
        let sinks = |settings: &RunSettings| {
            settings.pipeline.sinks.keys().filter(|name| !same_sink(name)).cloned().collect()
        };
        let sources = |names: &BTreeSet<String>| {
            names.iter().filter(|name| !same_source(name)).cloned().collect()
        };
        Self {
            removed: PartNames { sources: sources(&had), sinks: sinks(old) },
            added: PartNames { sources: sources(&has), sinks: sinks(new) },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Restarts sinks whose input has ended, because they cannot accept a new source.
    pub(super) fn restart_ended(
        &mut self,
        pipeline: &Pipeline,
        accepts_input: impl Fn(&str) -> bool,
    ) {
        for (name, SinkSettings::Usercom(sink)) in &pipeline.sinks {
            let fed = sink.inputs.iter().any(|input| self.added.sources.contains(input));
            if fed && !self.added.sinks.contains(name) && !accepts_input(name) {
                self.removed.sinks.insert(name.clone());
                self.added.sinks.insert(name.clone());
            }
        }
    }

    /// Why a pipeline cannot change from one to the other while it runs.
    pub(super) fn rejection(old: &RunSettings, new: &RunSettings) -> Option<&'static str> {
        let api = |s: &RunSettings| s.pipeline.api.clone().unwrap_or_default();
        if old.pipeline.data_dir != new.pipeline.data_dir {
            return Some("`data_dir` cannot change while the program runs; restart it");
        }
        if api(old).differs(&api(new)) {
            return Some("`[api]` cannot change while the program runs; restart it");
        }
        None
    }
}

impl fmt::Display for Changes {
    /// `sink `crm` changed, source `app` added`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let kinds = [
            ("sink", &self.removed.sinks, &self.added.sinks),
            ("source", &self.removed.sources, &self.added.sources),
        ];
        for (kind, out, into) in kinds {
            for name in out.union(into) {
                let what = match (out.contains(name), into.contains(name)) {
                    (true, true) => "changed",
                    (true, false) => "removed",
                    (false, _) => "added",
                };
                write!(f, "{separator}{kind} `{name}` {what}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FixedEnvironment, SourceText, load};

    fn settings(text: &str) -> RunSettings {
        let text = SourceText::new("p.toml", text);
        let loaded = load(&[text], &FixedEnvironment::default(), &|_, _| Vec::new());
        loaded
            .unwrap_or_else(|report| panic!("{}", report.render(crate::config::Style::Plain)))
            .into()
    }

    fn sink(name: &str, inputs: &str, key: &str) -> String {
        format!(
            "[sinks.{name}]\ntype = \"usercom\"\ninputs = {inputs}\napp = \"acme\"\n\
             preset = \"segment\"\napi_key = \"{key}\"\n"
        )
    }

    const SOURCES: &str = "sources.a = { type = \"file\", include = [\"a\"] }\n\
                           sources.b = { type = \"file\", include = [\"b\"] }\n";

    #[test]
    fn changes_list_only_changed_parts() {
        // Guarantees which parts end and begin: changed, added, removed, and a source that no sink
        // takes any more.
        let one = settings(&format!("{SOURCES}{}", sink("x", "[\"a\", \"b\"]", "one-key")));
        let same = Changes::between(&one, &one);
        assert!(same.is_empty() && same.to_string().is_empty());
        let two = settings(&format!(
            "{}{}{}",
            SOURCES.replace("[\"a\"]", "[\"a\", \"c\"]"),
            sink("x", "[\"a\"]", "one-key"),
            sink("y", "[\"a\"]", "one-key"),
        ));
        let changes = Changes::between(&one, &two);
        assert_eq!(
            changes.to_string(),
            "sink `x` changed, sink `y` added, source `a` changed, source `b` removed"
        );
        assert_eq!(
            Changes::between(&two, &one).to_string(),
            "sink `x` changed, sink `y` removed, source `a` changed, source `b` added"
        );
    }

    #[test]
    fn sink_without_input_restarts_with_its_new_source() {
        // Guarantees that a changed source is never connected to a sink that has ended.
        let one = settings(&format!("{SOURCES}{}", sink("x", "[\"a\", \"b\"]", "one-key")));
        let other = SOURCES.replace("[\"a\"]", "[\"c\"]");
        let two = settings(&format!("{other}{}", sink("x", "[\"a\", \"b\"]", "one-key")));
        let mut changes = Changes::between(&one, &two);
        changes.restart_ended(&two.pipeline, |_| true);
        assert_eq!(changes.to_string(), "source `a` changed");
        changes.restart_ended(&two.pipeline, |_| false);
        assert_eq!(changes.to_string(), "sink `x` changed, source `a` changed");
    }

    #[test]
    fn changes_that_need_restart_are_rejected() {
        // Guarantees that the store and the status page stay what they were at the start.
        let rest = format!("{SOURCES}{}", sink("x", "[\"a\", \"b\"]", "one-key"));
        let one = settings(&rest);
        let dir = settings(&format!("data_dir = \"other\"\n{rest}"));
        let api = settings(&format!("api.listen = \"127.0.0.1:9000\"\n{rest}"));
        assert!(Changes::rejection(&one, &one).is_none());
        assert!(Changes::rejection(&one, &dir).is_some_and(|why| why.contains("data_dir")));
        assert!(Changes::rejection(&one, &api).is_some_and(|why| why.contains("[api]")));
    }
}
