//! Logging: to stderr, as text or JSON, filtered by `RUST_LOG`, with repeated messages suppressed.

mod limit;

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

use self::limit::Limited;

use super::progress::AboveBar;
use crate::config::Style;

/// How to log.
#[derive(Debug, Args)]
pub(super) struct LogOptions {
    /// Format of log lines
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value = "auto")]
    color: Color,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

impl LogOptions {
    /// The style of text on stderr.
    pub(super) fn style(&self) -> Style {
        self.style_of(&std::io::stderr())
    }

    /// The style of text on stdout.
    pub(super) fn stdout_style(&self) -> Style {
        self.style_of(&std::io::stdout())
    }

    fn style_of(&self, stream: &impl IsTerminal) -> Style {
        let plain_wanted = std::env::var_os("NO_COLOR").is_some();
        match self.color {
            Color::Always => Style::Coloured,
            Color::Auto if stream.is_terminal() && !plain_wanted => Style::Coloured,
            Color::Auto | Color::Never => Style::Plain,
        }
    }

    /// Starts logging. `RUST_LOG` takes precedence over `default`.
    pub(super) fn init(&self, default: &str) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(|| AboveBar)
            .with_ansi(self.style() == Style::Coloured);
        match self.log_format {
            LogFormat::Text => {
                builder.with_target(false).map_event_format(limited).init();
            }
            LogFormat::Json => builder.json().map_event_format(limited).init(),
        }
    }
}

fn limited<F>(format: F) -> Limited<F, fn() -> Instant> {
    Limited::new(format, Instant::now)
}
