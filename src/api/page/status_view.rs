//! The status view: what the pipeline does, and the last hour of each sink.

use jiff::Timestamp;
use maud::{Markup, html};

use super::layout::marked;
use super::plot::{Plot, Series, number, whole};
use crate::api::Service;
use crate::telemetry::{
    ErrorStatus, Point, SinkStatus, SourceStatus, State, Status, files_words, length_words,
    size_words,
};

/// The view, with the place whose content is sent again.
pub(super) fn view(service: &Service) -> Markup {
    html! {
        h1.visually-hidden { "Status" }
        p #connection role="status" aria-live="polite" {}
        div #live data-events="/events" { (status_fragment(service)) }
    }
}

/// The changing part of the view.
pub(in crate::api) fn status_fragment(service: &Service) -> Markup {
    let status = service.recorder.status();
    let history = service.recorder.history();
    html! {
        (head(&status))
        @for sink in &status.sinks {
            (sink_section(sink, history.get(&sink.name).map_or(&[], Vec::as_slice), status.time))
        }
        (sources_section(&status))
    }
}

fn pill(state: State) -> Markup {
    let tone = match state {
        State::Running => "good",
        State::Ended | State::Starting | State::Draining => "calm",
        State::Paused | State::Waiting => "warn",
        State::StorageFailed | State::Halted => "bad",
    };
    html! { span class={ "pill " (tone) } { (state.words()) } }
}

fn head(status: &Status) -> Markup {
    html! {
        section.hero aria-label="Pipeline" {
            div.line {
                (pill(status.state))
                p.reason { (marked(&status.reason)) }
            }
            p.facts {
                "Up " (length_words(status.time.duration_since(status.started).as_secs_f64()))
                " \u{b7} "
                @if status.ready { "ready" } @else { strong { "not ready" } }
                " \u{b7} " time { (clock(status.time)) } " UTC"
            }
            @if !status.ready {
                ul.notready { @for reason in &status.not_ready { li { (marked(reason)) } } }
            }
        }
    }
}

fn sink_section(sink: &SinkStatus, points: &[Point], now: Timestamp) -> Markup {
    let id = format!("sink-{}", sink.name);
    html! {
        section.card aria-labelledby=(id) {
            header.line {
                h2 id=(id) { "Sink " code { (sink.name) } }
                (pill(sink.state))
                p.reason { (marked(&sink.reason)) }
            }
            (tiles(sink))
            div.plots {
                @for plot in plots(sink, points, now) { (plot.draw()) }
            }
            div.tables {
                (requests_table(sink))
                (saved_table(sink))
                (dead_letters_table(sink))
                (unmatched_table(sink))
            }
            (errors_table(&sink.errors))
        }
    }
}

fn tile(name: &str, value: &str, note: &str) -> Markup {
    html! {
        div.tile {
            dt { (name) }
            dd { b { (value) } @if !note.is_empty() { span.note { (note) } } }
        }
    }
}

fn tiles(sink: &SinkStatus) -> Markup {
    let backlog = &sink.backlog;
    let oldest =
        sink.oldest_secs.map_or_else(String::new, |age| format!("oldest {}", length_words(age)));
    let unread = backlog.records.saturating_sub(sink.waiting);
    let about = if backlog.estimated { "about " } else { "" };
    let ends = match (backlog.ends_in_secs, backlog.records) {
        (Some(secs), _) => length_words(secs),
        (None, 0) => "done".to_owned(),
        (None, _) => "\u{2013}".to_owned(),
    };
    let ends_note = match (unread, backlog.ends_at) {
        (1.., _) => format!("{about}{} unread", whole(unread)),
        (0, Some(at)) => format!("at {}", clock(at)),
        (0, None) if backlog.records > 0 => "it does not shrink".to_owned(),
        (0, None) => String::new(),
    };
    let dead = &sink.dead_letters;
    let stored = dead.stored.map_or_else(String::new, |n| format!("{} stored", whole(n)));
    let quota = sink
        .quota_per_sec
        .map_or_else(|| "no quota learned yet".to_owned(), |q| format!("quota {}/s", number(q)));
    let (latency, slow) = match &sink.latency {
        Some(latency) => {
            (format!("{} ms", number(latency.p50_ms)), format!("p95 {} ms", number(latency.p95_ms)))
        }
        None => ("\u{2013}".to_owned(), String::new()),
    };
    html! {
        dl.tiles {
            (tile("Records in", &format!("{}/s", number(sink.records_in_per_sec)), &format!("{} in all", whole(sink.records.received))))
            (tile("Settled", &format!("{}/s", number(sink.records_out_per_sec)), &format!("{} delivered", whole(sink.records.delivered))))
            (tile("Requests", &format!("{}/s", number(sink.requests_per_sec)), &quota))
            (tile("In flight", &whole(sink.in_flight), &format!("of {} allowed", whole(sink.concurrency_limit))))
            (tile("Latency", &latency, &slow))
            (tile("Waiting", &whole(sink.waiting), &oldest))
            (tile("Backlog ends", &ends, &ends_note))
            (tile("Dead letters", &whole(dead.since_start), &stored))
        }
    }
}

fn plots(sink: &SinkStatus, points: &[Point], now: Timestamp) -> [Plot; 4] {
    let series = |name, unit, value: fn(&Point) -> Option<f64>| Series {
        name,
        unit,
        values: points.iter().map(|point| (point.time, value(point))).collect(),
    };
    #[expect(clippy::cast_precision_loss, reason = "a plot")]
    let backlog: fn(&Point) -> Option<f64> = |p| Some(p.backlog as f64);
    #[expect(clippy::cast_precision_loss, reason = "a plot")]
    let in_flight: fn(&Point) -> Option<f64> = |p| Some(p.in_flight as f64);
    #[expect(clippy::cast_precision_loss, reason = "a plot")]
    let limit: fn(&Point) -> Option<f64> = |p| Some(p.limit as f64);
    [
        Plot {
            title: "Records and requests",
            series: vec![
                series("in", "/s", |p| Some(p.records_in)),
                series("settled", "/s", |p| Some(p.records_out)),
                series("requests", "/s", |p| Some(p.requests)),
            ],
            forecast: None,
            now,
        },
        Plot {
            title: "Backlog",
            series: vec![series("records", "", backlog)],
            forecast: sink.backlog.ends_in_secs,
            now,
        },
        Plot {
            title: "Response time",
            series: vec![
                series("median", " ms", |p| p.p50_ms),
                series("95th percentile", " ms", |p| p.p95_ms),
            ],
            forecast: None,
            now,
        },
        Plot {
            title: "Concurrency and quota",
            series: vec![
                series("in flight", "", in_flight),
                series("limit", "", limit),
                series("quota", "/s", |p| p.quota),
            ],
            forecast: None,
            now,
        },
    ]
}

fn requests_table(sink: &SinkStatus) -> Markup {
    html! {
        section {
            h3 { "Requests" }
            @if sink.requests.is_empty() {
                p.empty { "None was sent yet." }
            } @else {
                table {
                    thead { tr { th scope="col" { "Route" } th.n scope="col" { "a second" } th.n scope="col" { "in all" } } }
                    tbody { @for route in &sink.requests {
                        tr {
                            th scope="row" { code { (route.route) } }
                            td.n { (number(route.per_sec)) }
                            td.n { (whole(route.total)) }
                        }
                    } }
                }
            }
        }
    }
}

fn saved_table(sink: &SinkStatus) -> Markup {
    let saved: Vec<_> = sink.requests_saved.iter().filter(|(_, n)| **n > 0).collect();
    html! {
        section {
            h3 { "Requests saved" }
            @if saved.is_empty() {
                p.empty { "None yet." }
            } @else {
                table {
                    thead { tr { th scope="col" { "Because" } th.n scope="col" { "in all" } } }
                    tbody { @for (by, n) in saved {
                        tr { th scope="row" { (saved_words(by)) } td.n { (whole(*n)) } }
                    } }
                }
            }
        }
    }
}

fn saved_words(by: &str) -> &str {
    match by {
        "folded" => "waiting changes of a user were joined",
        "unchanged" => "nothing had changed",
        "member" => "the user was a member already",
        "deduplicated" => "the message had been delivered",
        "verified" => "User.com had the event already",
        "merged" => "the ids were merged already",
        other => other,
    }
}

fn dead_letters_table(sink: &SinkStatus) -> Markup {
    let link = |reason: &str| {
        let all = percent_encoding::NON_ALPHANUMERIC;
        let sink = percent_encoding::utf8_percent_encode(&sink.name, all);
        format!(
            "/dead-letters?sink={sink}&reason={}",
            percent_encoding::utf8_percent_encode(reason, all)
        )
    };
    html! {
        section {
            h3 { "Dead letters" }
            @if sink.dead_letters.by_reason.is_empty() {
                p.empty { "None. Records that cannot be delivered will be listed here." }
            } @else {
                table {
                    thead { tr { th scope="col" { "Reason" } th scope="col" { "Rule" } th.n scope="col" { "Records" } } }
                    tbody { @for group in &sink.dead_letters.by_reason {
                        tr {
                            th scope="row" { a href=(link(&group.reason)) { (group.reason) } }
                            td { (group.rule.as_deref().unwrap_or("\u{2013}")) }
                            td.n { (whole(group.count)) }
                        }
                    } }
                }
            }
        }
    }
}

fn unmatched_table(sink: &SinkStatus) -> Markup {
    let unmatched = &sink.unmatched;
    html! {
        section {
            h3 { "Unmatched records" }
            @if unmatched.total == 0 {
                p.empty { "None. Every record matched a rule." }
            } @else {
                p.empty {
                    (whole(unmatched.total)) " in all"
                    @if unmatched.examined < unmatched.total {
                        ", of which " (whole(unmatched.examined)) " were compared with the rules"
                    }
                    "."
                }
                table {
                    thead { tr { th scope="col" { "Nearest rule" } th.n scope="col" { "Records" } } }
                    tbody { @for near in &unmatched.by_nearest_rule {
                        tr {
                            th scope="row" { (near.rule) }
                            td.n { (whole(near.count)) }
                        }
                    } }
                }
            }
        }
    }
}

fn errors_table(errors: &[ErrorStatus]) -> Markup {
    html! {
        section.errors {
            h3 { "Errors since the start" }
            @if errors.is_empty() {
                p.empty { "None." }
            } @else {
                table.cards {
                    thead { tr {
                        th scope="col" { "Kind" } th.n scope="col" { "Times" }
                        th scope="col" { "First" } th scope="col" { "Last" }
                        th scope="col" { "What happened, and what to do" }
                    } }
                    tbody { @for error in errors {
                        tr {
                            th scope="row" { code { (error.kind) } }
                            td.n data-label="Times" { (whole(error.count)) }
                            td data-label="First" { time { (moment(error.first)) } }
                            td data-label="Last" { time { (moment(error.last)) } }
                            td.wide {
                                (marked(&error.detail))
                                @if !error.advice.is_empty() { span.advice { (marked(&error.advice)) } }
                            }
                        }
                    } }
                }
            }
        }
    }
}

fn sources_section(status: &Status) -> Markup {
    html! {
        section.card aria-labelledby="sources" {
            header.line { h2 #sources { "Sources" } }
            table.cards {
                thead { tr {
                    th scope="col" { "Name" } th scope="col" { "Type" } th scope="col" { "State" }
                    th.n scope="col" { "Records" } th.n scope="col" { "a second" }
                    th scope="col" { "Behind" }
                } }
                tbody { @for source in &status.sources {
                    tr {
                        th scope="row" { code { (source.name) } }
                        td data-label="Type" { (source.kind) }
                        td.wide data-label="State" { (pill(source.state)) " " span.reason { (marked(&source.reason)) } }
                        td.n data-label="Records" { (whole(source.records)) }
                        td.n data-label="a second" { (number(source.records_per_sec)) }
                        td data-label="Behind" { (behind(source)) }
                    }
                } }
            }
        }
    }
}

fn behind(source: &SourceStatus) -> Markup {
    let lag = &source.lag;
    let files = lag.files.map_or_else(String::new, |n| format!(" in {}", files_words(n)));
    html! {
        @if let (Some(bytes), Some(total)) = (lag.bytes_behind, lag.bytes_total) {
            (size_words(bytes)) " of " (size_words(total)) (files)
        } @else if let Some(records) = lag.records_behind {
            (whole(records)) " records"
            @if lag.partitions.len() > 1 {
                ul.partitions {
                    @for partition in lag.partitions.iter().filter(|p| p.records_behind > 0).take(50) {
                        li { (partition.topic) "/" (partition.partition) ": " (whole(partition.records_behind)) }
                    }
                }
            }
        } @else if let Some(open) = lag.requests_in_flight {
            (whole(open)) @if open == 1 { " request in flight" } @else { " requests in flight" }
        } @else { "\u{2013}" }
    }
}

fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

fn moment(at: Timestamp) -> String {
    at.strftime("%b %d, %H:%M:%S").to_string()
}
