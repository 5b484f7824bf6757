//! `probe`: finds out by experiment what an account does where the documentation does not say.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::emulator::wait_for_signal;
use super::load::{ConfigFiles, unknown_sink};
use super::output::{Exit, eprint, fail, print, printable};
use super::paint::Paint;
use super::run::OutputFormat;
use super::table::table;
use crate::config::sink::UsercomSink;
use crate::config::{BaseUrl, Pipeline, SinkConfig, Style};
use crate::deliver::SingleAttemptClient;
use crate::usercom::{
    Finding, FindingOutcome, MAX_REQUESTS, PREFIX, ProbeEnd, ProbeOptions, ProbeReport,
    probe_account,
};

/// Find out by experiment what the account does where User.com's documentation does not say.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink probe -c pipeline.toml
  usercom-sink probe -c pipeline.toml --yes --write facts.toml
  usercom-sink run -c pipeline.toml -c facts.toml

It creates users, companies and events in the account, asks its questions about them, and deletes
them. Their ids and names begin with `usercom-sink-probe-`. It sends at most 200 requests, within
`request.rate_limit_num`, and stops at the first 401, 403 or 429.

Exit codes: 0 all answered, 1 the sink cannot work with an answer, or it stopped early, 77 the API
key was refused, 78 bad config.")]
pub(super) struct ProbeCommand {
    #[command(flatten)]
    files: ConfigFiles,
    /// The sink whose account is asked; needed if there are several
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Do not ask before it writes to the account
    #[arg(long)]
    yes: bool,
    /// Ask questions that may leave custom attributes behind
    #[arg(long)]
    attributes: bool,
    /// Do not delete what it made
    #[arg(long)]
    keep: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
    /// Write the facts to a file, for `run -c pipeline.toml -c FILE`
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

impl ProbeCommand {
    pub(super) async fn run(self, style: Style, paint: Paint) -> Exit {
        let pipeline = match self.files.load(style) {
            Ok(loaded) => loaded.pipeline,
            Err(exit) => return exit,
        };
        let (name, sink) = match self.choose(&pipeline) {
            Ok(chosen) => chosen,
            Err(exit) => return exit,
        };
        let base_url = match sink.base_url() {
            Ok(base_url) => base_url,
            Err(error) => return fail(&error.to_string()),
        };
        if let Err(exit) = self.announce(name, &base_url) {
            return exit;
        }
        let client = SingleAttemptClient::new(&base_url, &sink.api_key, &sink.request);
        let client = match client {
            Ok(client) => client,
            Err(error) => return fail(&error.to_string()),
        };
        let options = ProbeOptions { attributes: self.attributes, keep: self.keep };
        let stop = CancellationToken::new();
        let report = {
            let probing = probe_account(&client, options, stop.clone());
            tokio::pin!(probing);
            tokio::select! {
                report = &mut probing => report,
                () = wait_for_signal() => {
                    eprint("stopping: what was made is deleted first\n");
                    stop.cancel();
                    probing.await
                }
            }
        };
        self.show(name, &report, paint)
    }

    /// The sink that is named, or the only one.
    fn choose<'p>(&self, pipeline: &'p Pipeline) -> Result<(&'p str, &'p UsercomSink), Exit> {
        let names: Vec<&str> = pipeline.sinks.keys().map(String::as_str).collect();
        let wanted = match (&self.sink, names.as_slice()) {
            (Some(name), _) => name.as_str(),
            (None, [only]) => only,
            (None, _) => {
                fail(&format!(
                    "there are several sinks: name one of {} with --sink",
                    names.join(", ")
                ));
                return Err(Exit::Usage);
            }
        };
        match pipeline.sinks.get_key_value(wanted) {
            Some((name, SinkConfig::Usercom(sink))) => Ok((name, sink)),
            None => Err(unknown_sink(pipeline, wanted)),
        }
    }

    /// Says what will be done, and asks.
    fn announce(&self, name: &str, base_url: &BaseUrl) -> Result<(), Exit> {
        let end = if self.keep { "and leaves them there" } else { "and deletes them at the end" };
        eprint(&format!(
            "The probe writes to the account of sink `{}` ({}). It creates about 12 users, 3 \
             companies, some events and page views, whose ids and names begin with `{PREFIX}`, \
             {end}. The definition of the event `{PREFIX}event` stays. It sends at most \
             {MAX_REQUESTS} requests.\n",
            printable(name),
            printable(base_url.as_str()),
        ));
        if self.attributes {
            eprint("It creates two custom attributes and tries to delete them.\n");
        }
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            fail("nothing was sent: without a terminal the probe needs --yes");
            return Err(Exit::Usage);
        }
        eprint("Continue? [y/N] ");
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        match read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
            true => Ok(()),
            false => {
                fail("nothing was sent");
                Err(Exit::Failed)
            }
        }
    }

    fn show(&self, name: &str, report: &ProbeReport, paint: Paint) -> Exit {
        let printed = match self.format {
            OutputFormat::Text => print(&text(report, paint)),
            OutputFormat::Json => match serde_json::to_string_pretty(report) {
                Ok(json) => print(&format!("{json}\n")),
                Err(error) => fail(&error.to_string()),
            },
        };
        if printed != Exit::Done {
            return printed;
        }
        let knows_something = report.findings.iter().any(|finding| finding.setting.is_some());
        if let Some(path) = self.write.as_deref().filter(|_| knows_something)
            && let Err(exit) = write(path, &report.facts_file(name))
        {
            return exit;
        }
        match &report.end {
            ProbeEnd::KeyRefused(why) => {
                fail(&format!("the API key was refused, {why}"));
                Exit::KeyRefused
            }
            ProbeEnd::Stopped(why) => fail(&format!("it stopped early: {}", printable(why))),
            ProbeEnd::Complete if report.unworkable().next().is_some() => Exit::Failed,
            ProbeEnd::Complete => Exit::Done,
        }
    }
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), Exit> {
    std::fs::write(path, text)
        .map(|()| eprint(&format!("wrote {}\n", path.display())))
        .map_err(|error| fail(&format!("cannot write {}: {error}", path.display())))
}

/// The findings as a table with two more lines under each row, then what does not work and what is
/// left.
fn text(report: &ProbeReport, paint: Paint) -> String {
    let rows: Vec<Vec<String>> = report.findings.iter().map(row).collect();
    let lines = table(&["QUESTION", "ANSWER", "SETTING"], &rows, paint);
    let mut lines = lines.lines();
    let header = lines.next().filter(|_| !rows.is_empty());
    let mut text = header.map(|header| format!("{header}\n")).unwrap_or_default();
    for (line, finding) in lines.zip(&report.findings) {
        text += &format!("{line}\n    {}\n", finding.effect);
        if !finding.sent.is_empty() {
            text += &format!("    sent: {}\n", printable(&finding.sent));
        }
    }
    for finding in report.unworkable() {
        let FindingOutcome::Unworkable(why) = &finding.outcome else { continue };
        text += &format!("\nthe sink cannot work with this account: {}\n", printable(why));
    }
    if !report.left.is_empty() {
        text += "\nstill in the account:\n";
        for left in &report.left {
            text += &format!("  {}\n", printable(left));
        }
    }
    text += &format!("\n{} requests\n", report.requests);
    text
}

fn row(finding: &Finding) -> Vec<String> {
    let setting = finding.setting.as_ref().map_or_else(String::new, |setting| {
        let default = if setting.is_default { " (default)" } else { "" };
        format!("{} = {}{default}", setting.key, setting.value)
    });
    vec![finding.question.to_owned(), printable(&finding.answered), setting]
}
