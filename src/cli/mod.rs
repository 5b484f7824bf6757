//! The command line: one file a verb. Results go to stdout, logs and progress to stderr.

mod connector;
mod dead_letters;
mod demo;
mod emulator;
mod explain;
mod load;
mod log;
mod output;
mod reload;
mod run;
mod schema;
mod state;
mod test;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use output::Exit;

/// Records from a pipeline into User.com. Start with `usercom-sink demo`.
#[derive(Debug, Parser)]
#[command(name = "usercom-sink", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    log: log::LogOptions,
    #[command(subcommand)]
    verb: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show it work: a local User.com, the quick-start pipeline, and what landed
    Demo(demo::DemoCommand),
    /// Run a pipeline
    Run(run::RunCommand),
    /// Run as a connector of Fluvio's
    Connector(connector::ConnectorCommand),
    /// Find every fault in a pipeline file
    Validate(validate::ValidateCommand),
    /// Run the [[tests]] of a pipeline file
    Test(test::TestCommand),
    /// Tell what would happen to records, without network
    Explain(explain::ExplainCommand),
    /// Print the JSON Schema of pipeline files
    Schema(schema::SchemaCommand),
    /// Run a local User.com
    Emulator(emulator::EmulatorCommand),
    /// Look at and resend what could not be delivered
    DeadLetters(dead_letters::DeadLettersCommand),
}

/// Parses the command line, does what it says, and tells how it ended.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(connector::as_command(std::env::args_os())) {
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
    cli.log.init(match cli.verb {
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
        match cli.verb {
            Command::Demo(verb) => verb.run(style).await,
            Command::Run(verb) => verb.run(style).await,
            Command::Connector(verb) => verb.run(style).await,
            Command::Validate(verb) => verb.run(style).await,
            Command::Test(verb) => verb.run(style).await,
            Command::Explain(verb) => verb.run(style).await,
            Command::Schema(verb) => verb.run(),
            Command::Emulator(verb) => verb.run().await,
            Command::DeadLetters(verb) => verb.run(style).await,
        }
    });
    // Blocking reads (standard input) must not hold up the end.
    runtime.shutdown_background();
    exit.into()
}
