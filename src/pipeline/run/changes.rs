//! What one pipeline file has that another has not. Pure: nothing runs here, nothing is stopped.

use std::collections::BTreeSet;
use std::fmt;

use super::parts::taken_sources;
use crate::config::{Fingerprints, Loaded, Pipeline, SinkConfig as SinkSettings};

/// Settings a pipeline runs by.
pub(super) struct Settings {
    pub(super) pipeline: Pipeline,
    pub(super) fingerprints: Fingerprints,
}

impl From<Loaded> for Settings {
    fn from(loaded: Loaded) -> Self {
        Self { pipeline: loaded.pipeline, fingerprints: loaded.fingerprints }
    }
}

/// Names of sources and sinks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) sources: BTreeSet<String>,
    pub(super) sinks: BTreeSet<String>,
}

/// What must end and what must begin. A part that changed is in both.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) out: Names,
    pub(super) into: Names,
}

impl Changes {
    pub(super) fn between(old: &Settings, new: &Settings) -> Self {
        let (had, has) = (taken_sources(&old.pipeline), taken_sources(&new.pipeline));
        let same_source = |name: &str| {
            had.contains(name)
                && has.contains(name)
                && old.fingerprints.same_source(&new.fingerprints, name)
        };
        let same_sink = |name: &str| old.fingerprints.same_sink(&new.fingerprints, name);
        let sinks = |settings: &Settings| {
            settings.pipeline.sinks.keys().filter(|name| !same_sink(name)).cloned().collect()
        };
        let sources = |names: &BTreeSet<String>| {
            names.iter().filter(|name| !same_source(name)).cloned().collect()
        };
        Self {
            out: Names { sources: sources(&had), sinks: sinks(old) },
            into: Names { sources: sources(&has), sinks: sinks(new) },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A sink whose input has ended for good cannot take a new source: it begins anew too.
    pub(super) fn renew_ended(&mut self, pipeline: &Pipeline, takes_more: impl Fn(&str) -> bool) {
        for (name, SinkSettings::Usercom(sink)) in &pipeline.sinks {
            let fed = sink.inputs.iter().any(|input| self.into.sources.contains(input));
            if fed && !self.into.sinks.contains(name) && !takes_more(name) {
                self.out.sinks.insert(name.clone());
                self.into.sinks.insert(name.clone());
            }
        }
    }

    /// Why a pipeline cannot change from one to the other while it runs.
    pub(super) fn refusal(old: &Settings, new: &Settings) -> Option<&'static str> {
        let listen = |s: &Settings| s.pipeline.api.as_ref().map(|api| api.listen.clone());
        if old.pipeline.data_dir != new.pipeline.data_dir {
            return Some("`data_dir` cannot change while the program runs; restart it");
        }
        if listen(old) != listen(new) {
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
            ("sink", &self.out.sinks, &self.into.sinks),
            ("source", &self.out.sources, &self.into.sources),
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

    fn settings(text: &str) -> Settings {
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
    fn only_what_changed_is_touched() {
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
    fn a_sink_without_input_begins_anew_with_its_new_source() {
        // Guarantees that a changed source never meets a sink that has ended.
        let one = settings(&format!("{SOURCES}{}", sink("x", "[\"a\", \"b\"]", "one-key")));
        let other = SOURCES.replace("[\"a\"]", "[\"c\"]");
        let two = settings(&format!("{other}{}", sink("x", "[\"a\", \"b\"]", "one-key")));
        let mut changes = Changes::between(&one, &two);
        changes.renew_ended(&two.pipeline, |_| true);
        assert_eq!(changes.to_string(), "source `a` changed");
        changes.renew_ended(&two.pipeline, |_| false);
        assert_eq!(changes.to_string(), "sink `x` changed, source `a` changed");
    }

    #[test]
    fn what_needs_a_restart_is_refused() {
        // Guarantees that the store and the status page stay what they were at the start.
        let rest = format!("{SOURCES}{}", sink("x", "[\"a\", \"b\"]", "one-key"));
        let one = settings(&rest);
        let dir = settings(&format!("data_dir = \"other\"\n{rest}"));
        let api = settings(&format!("api.listen = \"127.0.0.1:9000\"\n{rest}"));
        assert!(Changes::refusal(&one, &one).is_none());
        assert!(Changes::refusal(&one, &dir).is_some_and(|why| why.contains("data_dir")));
        assert!(Changes::refusal(&one, &api).is_some_and(|why| why.contains("[api]")));
    }
}
