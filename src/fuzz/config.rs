//! Pipeline files in every format: loaded, or refused with a reason that shows no secret.

use crate::config::fault::{ConfigPath, Fault};
use crate::config::sink::UsercomSink;
use crate::config::{FixedEnvironment, SourceText, Style, load};
use crate::mapping::CompiledMapping;

/// The value of `${SECRET}` and of `${file:secret}`.
const SECRET: &str = "a-secret-value-0123456789";

/// The first byte selects the format, the rest is the file.
pub(super) fn config(data: &[u8]) {
    let Some((selected, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let name = ["p.toml", "p.yaml", "p.json"][usize::from(*selected) % 3];
    let mut environment = FixedEnvironment::default();
    environment.vars.insert("SECRET".into(), SECRET.into());
    environment.files.insert("secret".into(), SECRET.into());
    let compile = |at: &ConfigPath, sink: &UsercomSink| -> Vec<Fault> {
        CompiledMapping::compile(at, &sink.mapping, sink.preset).err().unwrap_or_default()
    };
    let report = match load(&[SourceText::new(name, text)], &environment, &compile) {
        Ok(loaded) => loaded.warnings,
        Err(report) => {
            assert!(!report.is_empty(), "a refusal says why");
            report
        }
    };
    // The file itself is shown where it is at fault.
    if !text.contains(SECRET) {
        for shown in [report.render(Style::Plain), report.to_json().to_string()] {
            assert!(!shown.contains(SECRET), "{shown}");
        }
    }
}
