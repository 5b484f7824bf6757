//! `list`, `show` and `export`: prints dead letters.

use super::DeadLetterSelector;
use crate::buffer::{Store, StoreError, StoredDeadLetter, export};
use crate::cli::output::{Exit, eprint, fail, print, printable};
use crate::cli::paint::Paint;
use crate::cli::run::OutputFormat;
use crate::cli::table::table;

/// Dead letters read from the store at a time.
const PAGE_SIZE: usize = 500;

impl DeadLetterSelector {
    pub(super) async fn summarize(
        &self,
        store: &Store,
        sinks: &[String],
        paint: Paint,
    ) -> Result<Exit, StoreError> {
        let mut causes = Vec::new();
        for sink in sinks {
            causes.extend(store.dead_letter_causes(sink, self.filter()).await?);
        }
        if self.format == OutputFormat::Json {
            let lines = causes.iter().filter_map(|cause| serde_json::to_string(cause).ok());
            return Ok(print(&lines.map(|line| line + "\n").collect::<String>()));
        }
        if causes.is_empty() {
            eprint("no dead letters\n");
            return Ok(Exit::Done);
        }
        let rows: Vec<Vec<String>> = causes
            .iter()
            .map(|cause| {
                vec![
                    cause.count.to_string(),
                    cause.sink.clone(),
                    printable(&cause.reason),
                    shown(cause.rule.as_deref()),
                    shown(cause.field.as_deref()),
                    time(cause.oldest),
                    time(cause.newest),
                    cause.last_id.to_string(),
                    printable(&cause.detail),
                ]
            })
            .collect();
        let header = [
            "COUNT",
            "SINK",
            "REASON",
            "RULE",
            "FIELD",
            "OLDEST",
            "NEWEST",
            "LAST ID",
            "DETAIL OF THE LAST",
        ];
        Ok(print(&table(&header, &rows, paint)))
    }

    /// Prints every selected dead letter, a page at a time.
    pub(super) async fn print_each(
        &self,
        store: &Store,
        sinks: &[String],
        text: impl Fn(&[StoredDeadLetter]) -> String,
    ) -> Result<Exit, StoreError> {
        let mut any = false;
        for sink in sinks {
            let mut offset = 0;
            loop {
                let page = store.dead_letters(sink, self.filter(), PAGE_SIZE, offset).await?;
                offset += page.len();
                if page.is_empty() {
                    break;
                }
                any = true;
                let printed = print(&match self.format {
                    OutputFormat::Text => text(&page),
                    OutputFormat::Json => page.iter().map(json_line).collect(),
                });
                if printed != Exit::Done {
                    return Ok(printed);
                }
            }
        }
        if !any && self.format == OutputFormat::Text {
            eprint("no dead letters\n");
        }
        Ok(Exit::Done)
    }

    pub(super) async fn export(&self, store: &Store, sinks: &[String]) -> Result<Exit, StoreError> {
        for sink in sinks {
            let mut offset = 0;
            loop {
                let page = store.dead_letters(sink, self.filter(), PAGE_SIZE, offset).await?;
                offset += page.len();
                if page.is_empty() {
                    break;
                }
                let exported = export(&page, &mut std::io::stdout().lock());
                match exported {
                    Ok(exported) if exported.left_out > 0 => eprint(&format!(
                        "{} dead letters have several lines and were skipped; see `show`\n",
                        exported.left_out
                    )),
                    Ok(_) => {}
                    Err(error) => return Ok(fail(&format!("cannot write: {error}"))),
                }
            }
        }
        Ok(Exit::Done)
    }
}

fn json_line(stored: &StoredDeadLetter) -> String {
    match serde_json::to_string(stored) {
        Ok(text) => format!("{text}\n"),
        Err(error) => {
            let object = serde_json::json!({ "id": stored.id, "error": error.to_string() });
            format!("{object}\n")
        }
    }
}

/// The rows of a page under a header.
pub(super) fn list_lines(page: &[StoredDeadLetter], paint: Paint) -> String {
    let rows: Vec<Vec<String>> = page
        .iter()
        .map(|stored| {
            let letter = &stored.letter;
            vec![
                stored.id.to_string(),
                time(letter.at),
                stored.sink.clone(),
                printable(&letter.reason),
                shown(letter.rule.as_deref()),
                shown(letter.place.as_deref()),
                printable(&letter.detail),
            ]
        })
        .collect();
    table(&["ID", "TIME", "SINK", "REASON", "RULE", "FROM", "DETAIL"], &rows, paint)
}

fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn shown(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), printable)
}

pub(super) fn full_text(stored: &StoredDeadLetter) -> String {
    match serde_json::to_string_pretty(stored) {
        Ok(text) => format!("{text}\n"),
        Err(error) => format!("dead letter {}: {error}\n", stored.id),
    }
}
