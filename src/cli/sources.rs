//! `sources`: what sources have read, and a change of it by hand.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::load::ConfigFiles;
use super::output::{Exit, eprint, fail, print, printable};
use super::paint::Paint;
use super::run::OutputFormat;
use super::state::open_existing;
use super::table::table;
use crate::buffer::{Access, Store, StoreError};
use crate::config::{Pipeline, SourceConfig, Style};
use crate::source::file::{FilePosition, NewPosition, file_positions, set_file_positions};
use crate::source::{Checkpoints, decoder};
use crate::suggest::nearest;

/// Show or change what sources have read.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink sources list -c pipeline.toml
  usercom-sink sources reset -c pipeline.toml logs/app.ndjson
  usercom-sink sources reset -c pipeline.toml --source app --all
  usercom-sink sources set -c pipeline.toml logs/app.ndjson --line 1200")]
pub(super) struct SourcesCommand {
    #[command(subcommand)]
    action: SourcesAction,
}

#[derive(Debug, Subcommand)]
enum SourcesAction {
    /// List files and positions
    List(ListSourcesCommand),
    /// Continue a file at a line or an offset
    Set(SetCommand),
    /// Read files from their beginning again
    Reset(ResetCommand),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink sources list -c pipeline.toml
  usercom-sink sources list -c pipeline.toml --source app --format json")]
struct ListSourcesCommand {
    #[command(flatten)]
    files: ConfigFiles,
    /// Only this source
    #[arg(long)]
    source: Option<String>,
    /// Output format; `json` prints one object per line
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink sources set -c pipeline.toml logs/app.ndjson --line 1200
  usercom-sink sources set -c pipeline.toml logs/app.ndjson --offset 0

The pipeline must be stopped. A compressed file can only be read from its beginning: see
`sources reset`. Records that are read again are sent again, unless their message ids are
known from the last 24 hours (delivery.dedupe_window_secs).")]
struct SetCommand {
    #[command(flatten)]
    files: ConfigFiles,
    /// The file, as `list` shows it
    file: PathBuf,
    /// Only this source
    #[arg(long)]
    source: Option<String>,
    /// The next line to read, counted from 1
    #[arg(long, required_unless_present = "offset", value_parser = clap::value_parser!(u64).range(1..))]
    line: Option<u64>,
    /// The offset in bytes at which the next line to read begins
    #[arg(long, conflicts_with = "line")]
    offset: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  usercom-sink sources reset -c pipeline.toml logs/app.ndjson
  usercom-sink sources reset -c pipeline.toml --source app --all

The pipeline must be stopped. Records that are read again are sent again, unless their
message ids are known from the last 24 hours (delivery.dedupe_window_secs).")]
struct ResetCommand {
    #[command(flatten)]
    files: ConfigFiles,
    /// The files, as `list` shows them
    #[arg(required_unless_present = "all", value_name = "FILE")]
    paths: Vec<PathBuf>,
    /// Every file of the source, or of all sources
    #[arg(long, conflicts_with = "paths")]
    all: bool,
    /// Only this source
    #[arg(long)]
    source: Option<String>,
}

/// A source and one file of it.
type Found = (String, FilePosition);

impl SourcesCommand {
    pub(super) async fn run(self, style: Style, paint: Paint) -> Exit {
        let (files, source, access) = match &self.action {
            SourcesAction::List(list) => (&list.files, &list.source, Access::ReadOnly),
            SourcesAction::Set(set) => (&set.files, &set.source, Access::Owner),
            SourcesAction::Reset(reset) => (&reset.files, &reset.source, Access::Owner),
        };
        let pipeline = match files.load_offline(style) {
            Ok(loaded) => loaded.pipeline,
            Err(exit) => return exit,
        };
        let names = match chosen(&pipeline, source.as_deref()) {
            Ok(names) => names,
            Err(exit) => return exit,
        };
        let store = match open_existing(&pipeline.data_dir, access) {
            Ok(store) => store,
            Err(error @ StoreError::InUse { .. }) => {
                return fail(&format!(
                    "{error}: positions cannot be changed while the pipeline runs; stop it first"
                ));
            }
            Err(error) => return fail(&error.to_string()),
        };
        let done = match self.action {
            SourcesAction::List(list) => list.list(&pipeline, &names, &store, paint).await,
            SourcesAction::Set(set) => set.set(&pipeline, &names, &store).await,
            SourcesAction::Reset(reset) => reset.reset(&pipeline, &names, &store).await,
        };
        store.close().await;
        done.unwrap_or_else(|message| fail(&message))
    }
}

/// The sources that are meant.
fn chosen(pipeline: &Pipeline, source: Option<&str>) -> Result<Vec<String>, Exit> {
    let all = || pipeline.sources.keys();
    match source {
        Some(name) if !pipeline.sources.contains_key(name) => {
            let near = nearest(name, all().map(String::as_str));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            fail(&format!("there is no source `{}`{near}", printable(name)));
            Err(Exit::Usage)
        }
        Some(name) => Ok(vec![name.to_owned()]),
        None => Ok(all().cloned().collect()),
    }
}

/// The files of these sources that have a checkpoint.
async fn files_of(
    pipeline: &Pipeline,
    names: &[String],
    store: &Store,
) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for name in names {
        if let Some(SourceConfig::File(config)) = pipeline.sources.get(name) {
            let files =
                file_positions(store, name, config).await.map_err(|error| error.to_string())?;
            found.extend(files.into_iter().map(|file| (name.clone(), file)));
        }
    }
    Ok(found)
}

/// The files that a path names: the file that is there now, or one that was there and is gone.
fn named(found: &[Found], path: &Path) -> Result<Vec<Found>, String> {
    let present = found.iter().filter(|(_, file)| file.is_at(path));
    let mut matching: Vec<Found> = present.cloned().collect();
    if matching.is_empty() && !path.exists() {
        let wanted = std::path::absolute(path).ok();
        let was_there = |file: &FilePosition| {
            let known = Path::new(&file.path);
            file.found.is_none()
                && (known == path
                    || (wanted.is_some() && std::path::absolute(known).ok() == wanted))
        };
        matching = found.iter().filter(|(_, file)| was_there(file)).cloned().collect();
    }
    if matching.is_empty() {
        let known = found.iter().take(10).map(|(_, file)| printable(&file.path));
        let known = known.collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "there is none".to_owned() } else { known };
        let path = printable(&path.to_string_lossy());
        return Err(format!(
            "no checkpoint of {path}: nothing of it was read yet, so the next run reads it whole, if \
             a pattern of the source finds it; files with a checkpoint: {known}"
        ));
    }
    Ok(matching)
}

impl ListSourcesCommand {
    async fn list(
        &self,
        pipeline: &Pipeline,
        names: &[String],
        store: &Store,
        paint: Paint,
    ) -> Result<Exit, String> {
        let found = files_of(pipeline, names, store).await?;
        let mut others = Vec::new();
        for name in names {
            others.extend(other_source(pipeline, name, store).await?);
        }
        if self.format == OutputFormat::Json {
            let files = found.iter().map(|(source, file)| file_json(source, file));
            let lines = files.chain(others.iter().map(|other| other.json.clone()));
            return Ok(print(&lines.map(|line| format!("{line}\n")).collect::<String>()));
        }
        let rows: Vec<Vec<String>> =
            found.iter().map(|(source, file)| file_row(source, file)).collect();
        let mut text = String::new();
        if !rows.is_empty() {
            text += &table(&["SOURCE", "READ", "OFFSET", "OF", "LINES", "FILE", ""], &rows, paint);
        }
        for other in &others {
            text += &format!("{}\n", other.text);
        }
        if text.is_empty() {
            eprint("nothing was read yet\n");
        }
        Ok(print(&text))
    }
}

fn file_row(source: &str, file: &FilePosition) -> Vec<String> {
    let size = file.total();
    let share = match size {
        Some(0) => "100 %".to_owned(),
        Some(size) => format!("{} %", file.position.min(size).saturating_mul(100) / size),
        None => "-".to_owned(),
    };
    vec![
        source.to_owned(),
        share,
        file.position.to_string(),
        size.map_or_else(|| "-".to_owned(), |size| size.to_string()),
        file.lines.map_or_else(|| "-".to_owned(), |lines| lines.to_string()),
        printable(&file.path),
        remark(file).to_owned(),
    ]
}

fn file_json(source: &str, file: &FilePosition) -> Value {
    let gone = file.gone_since.and_then(|at| jiff::Timestamp::from_second(at).ok());
    json!({
        "source": source,
        "type": "file",
        "file": file.path,
        "offset": file.position,
        "size": file.total(),
        "lines": file.lines,
        "compressed": file.is_packed(),
        "copy": file.is_copy,
        "gone_since": gone.map(|at| at.to_string()),
    })
}

fn remark(file: &FilePosition) -> &'static str {
    if file.found.is_none() {
        "not found any more"
    } else if file.is_copy {
        "a copy; read from another file"
    } else if file.is_packed() {
        "compressed; the offset counts what is in it"
    } else {
        ""
    }
}

/// A source whose positions are not those of files.
struct OtherSource {
    text: String,
    json: Value,
}

async fn other_source(
    pipeline: &Pipeline,
    name: &str,
    store: &Store,
) -> Result<Option<OtherSource>, String> {
    let Some(source) = pipeline.sources.get(name) else {
        return Ok(None);
    };
    let where_kept = match source {
        SourceConfig::File(_) => return Ok(None),
        SourceConfig::Kafka(_) => "its consumer group in Kafka has the offsets",
        SourceConfig::Fluvio(_) => "the consumer in Fluvio has the offsets",
        SourceConfig::Stdin(_) => "standard input cannot be read again",
        SourceConfig::Http(_) | SourceConfig::Vector(_) => {
            "its senders repeat what is not accepted"
        }
    };
    let notes = store.load(name).await.map_err(|error| error.to_string())?;
    let mut text = format!("source {name} ({}): {where_kept}", source.kind());
    for (key, value) in &notes {
        text += &format!("\n  {}: {}", printable(key), printable(value));
    }
    let notes: serde_json::Map<String, Value> =
        notes.into_iter().map(|(key, value)| (key, value.into())).collect();
    let json = json!({ "source": name, "type": source.kind(), "notes": notes });
    Ok(Some(OtherSource { text, json }))
}

impl SetCommand {
    async fn set(
        &self,
        pipeline: &Pipeline,
        names: &[String],
        store: &Store,
    ) -> Result<Exit, String> {
        let found = files_of(pipeline, names, store).await?;
        let mut changed = String::new();
        for (source, file) in named(&found, &self.file)? {
            if file.is_packed() {
                return Err(format!(
                    "{} is compressed: it can only be read again from its beginning, with `sources reset`",
                    printable(&file.path)
                ));
            }
            let decoder = pipeline.sources.get(&source).map(decoder);
            if decoder.is_some_and(|it| it.is_ok_and(|decoder| !decoder.has_plain_newlines())) {
                return Err(format!(
                    "{} is decoded as UTF-16, whose lines are not counted here: it can be read again from its beginning, with `sources reset`",
                    printable(&file.path)
                ));
            }
            let path = Path::new(&file.path);
            let new = match (self.line, self.offset) {
                (Some(line), _) => start_of_line(path, line),
                (None, offset) => check_offset(path, offset.unwrap_or(0)),
            };
            let new = new.map_err(|why| format!("{}: {why}", printable(&file.path)))?;
            set_file_positions(store, &source, &[(file.key.clone(), Some(new))])
                .await
                .map_err(|error| error.to_string())?;
            changed += &format!(
                "{}: next read from offset {} (was {})\n",
                printable(&file.path),
                new.position,
                file.position
            );
        }
        Ok(print(&changed))
    }
}

impl ResetCommand {
    async fn reset(
        &self,
        pipeline: &Pipeline,
        names: &[String],
        store: &Store,
    ) -> Result<Exit, String> {
        let found = files_of(pipeline, names, store).await?;
        let mut chosen: Vec<Found> = match self.all {
            true => found,
            false => {
                let lists = self.paths.iter().map(|path| named(&found, path));
                lists.collect::<Result<Vec<_>, _>>()?.concat()
            }
        };
        chosen.sort_by(|a, b| (&a.0, &a.1.key).cmp(&(&b.0, &b.1.key)));
        chosen.dedup();
        let mut text = String::new();
        for (source, file) in &chosen {
            let start = NewPosition { position: 0, lines: Some(0) };
            set_file_positions(store, source, &[(file.key.clone(), Some(start))])
                .await
                .map_err(|error| error.to_string())?;
            text += &format!(
                "{}: read from its beginning by the next run (was at {})\n",
                printable(&file.path),
                file.position
            );
        }
        if chosen.is_empty() {
            eprint("no file has a checkpoint\n");
        }
        Ok(print(&text))
    }
}

/// The offset of a line, counted from 1. The line after the last one is the end.
fn start_of_line(path: &Path, line: u64) -> Result<NewPosition, String> {
    let text = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut reader = BufReader::new(text);
    let (mut position, mut lines) = (0_u64, 0_u64);
    while lines + 1 < line {
        let read = skip_line(&mut reader).map_err(|error| error.to_string())?;
        if read == 0 {
            return Err(format!("it has only {lines} lines"));
        }
        position += read;
        lines += 1;
    }
    Ok(NewPosition { position, lines: Some(lines) })
}

/// Skips a line of any length. Returns its bytes with the newline.
fn skip_line(reader: &mut impl BufRead) -> std::io::Result<u64> {
    let mut skipped = 0_u64;
    loop {
        let buffered = reader.fill_buf()?;
        if buffered.is_empty() {
            return Ok(skipped);
        }
        let newline = memchr::memchr(b'\n', buffered);
        let used = newline.map_or(buffered.len(), |at| at + 1);
        reader.consume(used);
        skipped += used as u64;
        if newline.is_some() {
            return Ok(skipped);
        }
    }
}

/// Checks that a line begins at an offset.
fn check_offset(path: &Path, offset: u64) -> Result<NewPosition, String> {
    if offset == 0 {
        return Ok(NewPosition { position: 0, lines: Some(0) });
    }
    let text = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut reader = BufReader::new(text);
    let (mut position, mut lines) = (0_u64, 0_u64);
    while position < offset {
        let read = skip_line(&mut reader).map_err(|error| error.to_string())?;
        if read == 0 {
            return Err(format!("it has only {position} bytes"));
        }
        position += read;
        lines += 1;
    }
    match position == offset {
        true => Ok(NewPosition { position, lines: Some(lines) }),
        false => Err(format!("no line begins at offset {offset}; use --line")),
    }
}
