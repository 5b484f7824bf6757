//! The command line, one file per command. Results go to stdout, logs and progress to stderr.

mod arguments;
mod completions;
#[cfg(feature = "fluvio")]
mod connector;
#[cfg(not(feature = "fluvio"))]
#[path = "no_connector.rs"]
mod connector;
mod dead_letters;
mod demo;
mod dry_run;
mod emulator;
mod explain;
mod junit;
mod load;
mod log;
mod output;
mod paint;
mod playground;
mod probe;
mod progress;
mod reload;
mod run;
mod schema;
mod service;
mod sources;
mod state;
mod status;
mod table;
mod test;
mod validate;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use output::Exit;

use paint::Paint;

/// Deliver records of a data pipeline to User.com. Start with `usercom-sink demo`.
#[derive(Debug, Parser)]
#[command(name = "usercom-sink", version, about, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  usercom-sink demo
  usercom-sink validate -c pipeline.toml
  usercom-sink run -c pipeline.toml --once

`usercom-sink COMMAND --help` shows the options and examples of a command.")]
struct Cli {
    #[command(flatten)]
    log: log::LogOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a local demo: emulator, quick-start pipeline, and what arrived
    Demo(demo::DemoCommand),
    /// Run a pipeline
    Run(run::RunCommand),
    /// Run as a Fluvio connector
    Connector(connector::ConnectorCommand),
    /// Show the status of the running pipeline
    Status(status::StatusCommand),
    /// Try a mapping in the browser
    Playground(playground::PlaygroundCommand),
    /// Find out by experiment what the account does
    Probe(probe::ProbeCommand),
    /// Check a pipeline file and report every fault
    Validate(validate::ValidateCommand),
    /// Run the [[tests]] of a pipeline file
    Test(test::TestCommand),
    /// Dry-run records through the mapping, without network
    Explain(explain::ExplainCommand),
    /// Print the JSON Schema of pipeline files
    Schema(schema::SchemaCommand),
    /// Run the local User.com emulator
    Emulator(emulator::EmulatorCommand),
    /// List, export, replay or delete dead letters
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Show or change what sources have read
    Sources(sources::SourcesCommand),
    /// Print the completions of a shell
    Completions(completions::CompletionsCommand),
    /// Print the manual page, or write those of all commands
    Man(completions::ManCommand),
}

/// Options of every command. They are shown in the help of the program, not in that of each
/// command.
const GLOBAL_OPTIONS: [&str; 2] = ["log_format", "color"];

/// The command line as it is parsed.
fn command_line() -> clap::Command {
    let hide = |command: clap::Command, option| command.mut_arg(option, |arg| arg.hide(true));
    let command = GLOBAL_OPTIONS.into_iter().fold(Cli::command(), hide);
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    command.after_help(format!(
        "\
Options of every command:
      --log-format <FORMAT>  Format of log lines: text (default) or json
      --color <WHEN>         When to use colours: auto (default), always or never

{examples}"
    ))
}

fn parse() -> Result<Cli, clap::Error> {
    let arguments = arguments::with_command(std::env::args_os());
    let matches = command_line().try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command_line()))
}

/// Parses the command line and runs its command. Returns the exit code.
pub fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results; anything else is a wrong command line.
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            return match error.print() {
                Ok(()) => code.into(),
                Err(_) => Exit::Failed.into(),
            };
        }
    };
    let style = cli.log.style();
    let paint = Paint(cli.log.stdout_style());
    cli.log.init(match cli.command {
        Command::Demo(_) => "warn",
        _ => "info",
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime could not be started");
            return Exit::Failed.into();
        }
    };
    let exit = runtime.block_on(async {
        match cli.command {
            Command::Demo(command) => command.run(style).await,
            Command::Run(command) => command.run(style).await,
            Command::Connector(command) => command.run(style).await,
            Command::Status(command) => command.run(style).await,
            Command::Playground(command) => command.run(style).await,
            Command::Probe(command) => command.run(style, paint).await,
            Command::Validate(command) => command.run(style).await,
            Command::Test(command) => command.run(style, paint).await,
            Command::Explain(command) => command.run(style, paint).await,
            Command::Schema(command) => command.run(),
            Command::Emulator(command) => command.run().await,
            Command::DeadLetters(command) => command.run(style, paint).await,
            Command::Sources(command) => command.run(style, paint).await,
            Command::Completions(command) => command.run(Cli::command()),
            Command::Man(command) => command.run(Cli::command()),
        }
    });
    // Blocking reads (standard input) must not hold up the end.
    runtime.shutdown_background();
    exit.into()
}
