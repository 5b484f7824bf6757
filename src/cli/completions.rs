//! `completions` and `man`: what shells and manual readers need, made from the command line itself.

use std::path::PathBuf;

use clap::{Args, Command};

use super::output::{Exit, fail, print};

/// Print the completions of a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink completions bash > /etc/bash_completion.d/usercom-sink
  usercom-sink completions zsh  > ~/.zfunc/_usercom-sink
  usercom-sink completions fish > ~/.config/fish/completions/usercom-sink.fish")]
pub(super) struct CompletionsCommand {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl CompletionsCommand {
    pub(super) fn run(self, mut command: Command) -> Exit {
        let mut text = Vec::new();
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, &mut text);
        print(&String::from_utf8_lossy(&text))
    }
}

/// Print the manual page, or write the pages of all commands.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink man | man -l -
  usercom-sink man --out /usr/local/share/man/man1")]
pub(super) struct ManCommand {
    /// Folder for the pages of all commands, made if it is missing; without it the main page goes to stdout
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl ManCommand {
    pub(super) fn run(self, command: Command) -> Exit {
        match self.out {
            Some(folder) => match std::fs::create_dir_all(&folder)
                .and_then(|()| clap_mangen::generate_to(command, &folder))
            {
                Ok(()) => Exit::Done,
                Err(error) => fail(&format!("cannot write to {}: {error}", folder.display())),
            },
            None => {
                let mut text = Vec::new();
                match clap_mangen::Man::new(command).render(&mut text) {
                    Ok(()) => print(&String::from_utf8_lossy(&text)),
                    Err(error) => fail(&error.to_string()),
                }
            }
        }
    }
}
