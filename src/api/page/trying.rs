//! The views that show what records become: the tap and the playground.

use maud::{Markup, html};

use super::layout::marked;
use super::letters::shown;
use crate::api::playground::{PlaygroundReport, PlaygroundText, TriedRecord, TriedRequest};

/// The tap, closed.
pub(super) fn tap_view(sinks: &[String], show_values: bool) -> Markup {
    html! {
        h1 { "Tap" }
        p.lead {
            "A live sample of records, at most four a second, with the calls and the requests that a "
            "cold cache would send. "
            @if show_values { "Values are shown (" code { "api.show_values = true" } ")." }
            @else { "Values are hidden; " code { "api.show_values = true" } " shows them." }
        }
        div.actions {
            @if sinks.len() > 1 {
                label for="tap-sink" { "Sink" }
                select #tap-sink { @for sink in sinks { option value=(sink) { (sink) } } }
            } @else {
                input #tap-sink type="hidden" value=(sinks.first().map_or("", String::as_str));
            }
            button.primary #tap-toggle type="button" aria-pressed="false" { "Open the tap" }
            button #tap-clear type="button" { "Clear" }
            span #tap-state role="status" aria-live="polite" { "The tap is closed." }
        }
        div #tapped { p.empty #tap-empty { "No record yet. Open the tap and wait for records to pass." } }
    }
}

/// One record of the tap.
pub(in crate::api) fn tapped(location: Option<&str>, tried: &TriedRecord) -> Markup {
    let title = location.unwrap_or("record");
    html! { article.card.tried { h2 { (title) } (columns(tried)) } }
}

/// The playground, with something to begin with.
pub(super) fn playground_view(
    files: &[PlaygroundText],
    records: &str,
    letter: Option<&(String, i64)>,
) -> Markup {
    // The file with the rules is the one to edit.
    let edited = files.iter().position(|file| file.text.contains("mapping")).unwrap_or(0);
    let sink = letter.map_or("", |(sink, _)| sink.as_str());
    html! {
        h1 { "Playground" }
        p.lead {
            "What becomes of records, as you type: no network, nothing is sent or saved. "
            @if let Some((_, id)) = letter {
                "The record is that of " a href={ "/dead-letters/" (id) } { "dead letter #" (id) } "."
            }
        }
        form #playground data-sink=(sink) {
            div.editors {
                div {
                    label for="records" { "Records, as the source reads them" }
                    textarea #records spellcheck="false" autocomplete="off" autocapitalize="off" rows="18" { "\n" (records) }
                }
                div {
                    @for (n, file) in files.iter().enumerate() {
                        @if n == edited { (file_editor(n, file)) }
                    }
                    @for (n, file) in files.iter().enumerate() {
                        @if n != edited {
                            details { summary { "Pipeline file " code { (file.name) } } (file_editor(n, file)) }
                        }
                    }
                }
            }
            div.actions {
                span #play-sinks hidden {
                    label for="play-sink" { "Sink" } " "
                    select #play-sink {}
                }
                button #copy-tests type="button" disabled { "Copy as [[tests]]" }
                span #play-state role="status" aria-live="polite" {}
            }
        }
        section #play-result aria-label="Result" {}
        details #tests-box hidden {
            summary { "As [[tests]]" }
            pre #tests-text tabindex="0" aria-label="As tests" {}
        }
    }
}

fn file_editor(n: usize, file: &PlaygroundText) -> Markup {
    let id = format!("file-{n}");
    html! {
        label for=(id) { "Pipeline file " code { (file.name) } }
        textarea.file id=(id) data-name=(file.name) spellcheck="false"
            autocomplete="off" autocapitalize="off" rows="18" { "\n" (file.text) }
    }
}

/// The result of the playground.
pub(in crate::api) fn playground_result(report: &PlaygroundReport) -> Markup {
    html! {
        @if let Some(faults) = &report.faults {
            section.card.faults {
                h2 { "The pipeline file has faults" }
                pre tabindex="0" aria-label="Faults" { (faults) }
            }
        } @else if report.records.is_empty() {
            p.empty { "Type a record on the left." }
        }
        @for (n, tried) in report.records.iter().enumerate() {
            article.card.tried {
                h2 { "Record " (n + 1) }
                (columns(tried))
            }
        }
        @if report.left_out > 0 { p { (report.left_out) " more records are not shown." } }
    }
}

fn columns(tried: &TriedRecord) -> Markup {
    html! {
        @for error in &tried.errors {
            p.error { strong { "Dead letter: " } (marked(error)) }
        }
        @if tried.errors.is_empty() && tried.calls.is_empty() {
            p.warning { strong { "Unmatched: " } "no rule wants it." }
        }
        div.columns {
            section {
                h3 { "Record" }
                pre tabindex="0" aria-label="Record" { (shown(tried.record.as_bytes())) }
                @if !tried.rules.is_empty() {
                    h3 { "Rules" }
                    ul.rules { @for rule in &tried.rules {
                        li.fired[rule.fired] {
                            span.mark { @if rule.fired { "fired" } @else { "not" } }
                            b { (rule.name) } " " span.note { (marked(&rule.why)) }
                        }
                    } }
                }
            }
            section {
                h3 { "Calls" }
                @if tried.calls.is_empty() { p.empty { "None." } }
                @for call in &tried.calls {
                    pre tabindex="0" aria-label="Call" { (shown(call.to_string().as_bytes())) }
                }
            }
            section {
                h3 { "Requests" }
                @if tried.requests.is_empty() { p.empty { "None." } }
                @for request in &tried.requests { (request_view(request)) }
                @for note in &tried.notes { p.note { (marked(note)) } }
            }
        }
    }
}

fn request_view(request: &TriedRequest) -> Markup {
    html! {
        p.route { b { (request.method) } " " code { (request.path) } }
        @if let Some(body) = &request.body {
            pre tabindex="0" aria-label="Body of the request" { (shown(body.to_string().as_bytes())) }
        }
    }
}
