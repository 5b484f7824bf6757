//! The views of dead letters: a list with filters, and one in full.

use maud::{Markup, html};
use serde_json::Value;

use super::layout::marked;
use super::plot::whole;
use crate::api::Service;
use crate::api::dead_letters::{ApiError, LetterQuery};
use crate::buffer::{DeadLetterGroup, DeadLetterRow, StoredDeadLetter};

/// Bytes of one text that a page shows; the API has the whole.
const MAX_SHOWN_BYTES: usize = 256 << 10;

/// The reasons and rules there are.
pub(super) async fn groups(service: &Service) -> Result<Vec<DeadLetterGroup>, ApiError> {
    let mut all = Vec::new();
    for sink in service.sink_names() {
        all.extend(service.store.group_dead_letters(&sink).await?);
    }
    Ok(all)
}

/// A list of dead letters.
pub(super) struct List<'a> {
    pub(super) query: &'a LetterQuery,
    pub(super) rows: Vec<DeadLetterRow>,
    pub(super) more: bool,
    pub(super) matching: u64,
    pub(super) groups: Vec<DeadLetterGroup>,
    pub(super) sinks: Vec<String>,
}

impl List<'_> {
    pub(super) fn view(&self) -> Markup {
        let filtered = self.is_filtered();
        html! {
            h1 { "Dead letters" }
            p.lead {
                "Records that could not be delivered, with the reason. Mend the mapping, then replay them: "
                "they go through the running pipeline again, and those that are delivered leave this list."
            }
            (self.filters())
            @if self.rows.is_empty() {
                section.card.empty-state {
                    @if filtered {
                        p { strong { "No dead letter matches." } }
                        p { a href="/dead-letters" { "Show all" } }
                    } @else {
                        p { strong { "There are no dead letters." } }
                        p { "Every record so far was delivered, is waiting, or matched no rule." }
                    }
                }
            } @else {
                (self.table())
            }
            p #result role="status" aria-live="polite" {}
            (dialog())
        }
    }

    fn is_filtered(&self) -> bool {
        let q = self.query;
        [&q.sink, &q.reason, &q.rule, &q.since, &q.before].iter().any(|text| !text.is_empty())
    }

    fn filters(&self) -> Markup {
        let mut reasons: Vec<&str> = self.groups.iter().map(|g| g.reason.as_str()).collect();
        let mut rules: Vec<&str> = self.groups.iter().filter_map(|g| g.rule.as_deref()).collect();
        for list in [&mut reasons, &mut rules] {
            list.sort_unstable();
            list.dedup();
        }
        let sinks: Vec<&str> = self.sinks.iter().map(String::as_str).collect();
        html! {
            form.filters method="get" action="/dead-letters" aria-label="Filters" {
                @if sinks.len() > 1 { (choice("sink", "Sink", &sinks, &self.query.sink)) }
                (choice("reason", "Reason", &reasons, &self.query.reason))
                (choice("rule", "Rule", &rules, &self.query.rule))
                div {
                    label for="since" { "Since (UTC)" }
                    input #since type="datetime-local" name="since" value=(self.query.since.trim_end_matches('Z'));
                }
                button type="submit" { "Filter" }
                @if self.is_filtered() { a href="/dead-letters" { "Show all" } }
            }
        }
    }

    fn export_link(&self) -> String {
        let q = self.query;
        let pairs =
            [("sink", &q.sink), ("reason", &q.reason), ("rule", &q.rule), ("since", &q.since)];
        let given: Vec<_> = pairs
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| {
                let value = percent_encoding::utf8_percent_encode(
                    value,
                    percent_encoding::NON_ALPHANUMERIC,
                );
                format!("{name}={value}")
            })
            .collect();
        format!("/api/v1/dead-letters/export?{}", given.join("&"))
    }

    fn older_link(&self) -> Option<String> {
        let last = self.rows.last().filter(|_| self.more)?;
        let base = self.export_link().replace("/api/v1/dead-letters/export", "/dead-letters");
        let joint = if base.ends_with('?') { "" } else { "&" };
        Some(format!("{base}{joint}before={}", last.id))
    }

    fn table(&self) -> Markup {
        let q = self.query;
        html! {
            form #letters data-sink=(q.sink) data-reason=(q.reason) data-rule=(q.rule)
                data-since=(q.since) data-matching=(self.matching)
            {
                div.actions {
                    span { strong { (whole(self.matching)) } @if self.matching == 1 { " dead letter" } @else { " dead letters" } }
                    button type="button" data-action="replay-selected" disabled { "Replay selected" }
                    button.primary type="button" data-action="replay-all" { "Replay all " (whole(self.matching)) }
                    a.button href=(self.export_link()) download { "Export" }
                    button.danger type="button" data-action="purge-selected" disabled { "Purge selected \u{2026}" }
                    button.danger type="button" data-action="purge-all" { "Purge all \u{2026}" }
                }
                table.cards.letters {
                    thead { tr {
                        th scope="col" {
                            input type="checkbox" id="select-all" aria-label="Select all that are shown";
                        }
                        th scope="col" { "Number" } th scope="col" { "Time (UTC)" }
                        th scope="col" { "Reason" } th scope="col" { "Rule" }
                        th scope="col" { "From" } th scope="col" { "What happened" }
                    } }
                    tbody { @for row in &self.rows { (list_row(row)) } }
                }
            }
            @if let Some(older) = self.older_link() { p { a href=(older) { "Older dead letters" } } }
        }
    }
}

fn list_row(row: &DeadLetterRow) -> Markup {
    html! {
        tr {
            td.select { input type="checkbox" name="id" value=(row.id) aria-label={ "Select dead letter " (row.id) }; }
            th scope="row" { a href={ "/dead-letters/" (row.id) } { "#" (row.id) } }
            td data-label="Time" { time { (row.at.strftime("%Y-%m-%d %H:%M:%S")) } }
            td data-label="Reason" { code { (row.reason) } }
            td data-label="Rule" { (row.rule.as_deref().unwrap_or("\u{2013}")) @if let Some(field) = &row.field { " " code { (field) } } }
            td data-label="From" { (row.place.as_deref().unwrap_or("\u{2013}")) }
            td.wide { (marked(&row.detail)) @if row.replays > 0 { span.note { "replayed " (times(u64::from(row.replays))) } } }
        }
    }
}

/// How often something was done.
fn times(n: u64) -> String {
    match n {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}

fn choice(name: &str, label: &str, values: &[&str], chosen: &str) -> Markup {
    html! {
        div {
            label for=(name) { (label) }
            select id=(name) name=(name) {
                option value="" selected[chosen.is_empty()] { "any" }
                @for value in values { option value=(value) selected[*value == chosen] { (value) } }
                @if !chosen.is_empty() && !values.contains(&chosen) {
                    option value=(chosen) selected { (chosen) }
                }
            }
        }
    }
}

/// The two questions before something is deleted for ever.
fn dialog() -> Markup {
    html! {
        dialog #purge aria-labelledby="purge-title" {
            form method="dialog" {
                h2 #purge-title { "Purge dead letters" }
                p #purge-text {}
                div #purge-second hidden {
                    label for="purge-word" { "Type " b { "purge" } " to delete them for ever" }
                    input #purge-word type="text" autocomplete="off" spellcheck="false";
                }
                div.actions {
                    button type="button" data-action="purge-cancel" { "Keep them" }
                    button.danger type="button" data-action="purge-next" { "Continue" }
                    button.danger type="button" data-action="purge-final" disabled hidden { "Purge for ever" }
                }
            }
        }
    }
}

/// A dead letter in full.
pub(super) fn one(stored: &StoredDeadLetter) -> Markup {
    let letter = &stored.letter;
    let id = stored.id;
    html! {
        p { a href="/dead-letters" { "\u{2190} All dead letters" } }
        h1 { "Dead letter #" (id) }
        p.lead { (marked(&letter.detail)) }
        form #letters data-id=(id) data-matching="1" {
            div.actions {
                button.primary type="button" data-action="replay-one" { "Replay" }
                a.button href={ "/playground?letter=" (id) } { "Try in the playground" }
                button.danger type="button" data-action="purge-one" { "Purge \u{2026}" }
            }
        }
        p #result role="status" aria-live="polite" {}
        section.card {
            dl.facts {
                (fact("Reason", Some(&letter.reason)))
                (fact("Sink", Some(&stored.sink)))
                (fact("Rule", letter.rule.as_deref()))
                (fact("Field", letter.field.as_deref()))
                (fact("From", letter.place.as_deref()))
                (fact("Time (UTC)", Some(&letter.at.strftime("%Y-%m-%d %H:%M:%S").to_string())))
                (fact("Status of the last response", letter.status.map(|s| s.to_string()).as_deref()))
                (fact("Requests made", Some(&letter.attempts.to_string())))
                (fact("Replayed", Some(&times(u64::from(stored.replays)))))
                (fact("Transport id", letter.transport_id.as_deref()))
            }
        }
        (text_section("Record", Some(&letter.record)))
        (text_section("Metadata", letter.meta.as_deref()))
        (text_section("Call", letter.call.as_deref().map(str::as_bytes)))
        (text_section("Response of User.com", letter.response.as_deref().map(str::as_bytes)))
        (dialog())
    }
}

/// A dead letter that is not there.
pub(super) fn gone(id: i64) -> Markup {
    html! {
        p { a href="/dead-letters" { "\u{2190} All dead letters" } }
        section.card.empty-state {
            h1 { "Dead letter #" (id) " is not here" }
            p { "It was replayed or purged." }
        }
    }
}

fn fact(name: &str, value: Option<&str>) -> Markup {
    html! { @if let Some(value) = value { div { dt { (name) } dd { (value) } } } }
}

fn text_section(title: &str, bytes: Option<&[u8]>) -> Markup {
    html! {
        @if let Some(bytes) = bytes {
            section.card {
                h2 { (title) }
                pre tabindex="0" aria-label=(title) { (shown(bytes)) }
            }
        }
    }
}

/// JSON with its structure visible, other texts as they are.
pub(super) fn shown(bytes: &[u8]) -> String {
    if bytes.len() > MAX_SHOWN_BYTES {
        let cut = String::from_utf8_lossy(&bytes[..MAX_SHOWN_BYTES]).into_owned();
        return format!("{cut}\n\u{2026} {} bytes in all; export it to see the rest", bytes.len());
    }
    let pretty = serde_json::from_slice::<Value>(bytes)
        .and_then(|value| serde_json::to_string_pretty(&value));
    pretty.unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned())
}
