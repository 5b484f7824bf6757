//! Plots as SVG, drawn from the points of the last hour. Labels are text of the page next to the
//! drawing, so that they stay readable at every width.

use jiff::Timestamp;
use maud::{Markup, html};

/// The coordinates that are drawn in.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 120.0;

/// The shortest time that is shown, in seconds, and the steps to the longest.
const SPANS: &[f64] = &[120.0, 300.0, 900.0, 1_800.0, 3_600.0];

/// One line of a plot.
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    /// Times and values; no value is a gap.
    pub(super) values: Vec<(Timestamp, Option<f64>)>,
}

/// A plot.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) series: Vec<Series>,
    /// Seconds until the first series is expected to reach zero.
    pub(super) forecast: Option<f64>,
    pub(super) now: Timestamp,
}

impl Plot {
    pub(super) fn draw(&self) -> Markup {
        let past = self.past();
        // The forecast takes at most a third of the width.
        let future = self.forecast.map_or(0.0, |secs| secs.clamp(past * 0.1, past * 0.5));
        let top = nice(self.highest());
        let x = |secs: f64| (past + secs) / (past + future) * WIDTH;
        let y = |value: f64| HEIGHT - value / top * HEIGHT;
        let empty = self.series.iter().all(|s| s.values.iter().all(|(_, v)| v.is_none()));
        html! {
            figure.plot {
                figcaption {
                    span.title { (self.title) }
                    ul.legend {
                        @for (n, series) in self.series.iter().enumerate() {
                            li {
                                span class={ "swatch s" (n + 1) } aria-hidden="true" {}
                                (series.name) " "
                                b { (series.last_words()) }
                            }
                        }
                    }
                }
                @if empty {
                    p.empty { "No values yet." }
                } @else {
                    div.axes {
                        div.ylabels aria-hidden="true" {
                            span { (number(top)) } span { (number(top / 2.0)) } span { "0" }
                        }
                        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none"
                            role="img" aria-label=(self.words())
                        {
                            @for line in [0.0, 0.5, 1.0] {
                                line.grid x1="0" x2=(WIDTH) y1=(HEIGHT * line) y2=(HEIGHT * line) {}
                            }
                            @if future > 0.0 {
                                line.now x1=(short(x(0.0))) x2=(short(x(0.0))) y1="0" y2=(HEIGHT) {}
                            }
                            @for (n, series) in self.series.iter().enumerate() {
                                path class={ "line s" (n + 1) }
                                    d=(series.path(self.now, past, &x, &y)) {}
                            }
                            @if let Some(d) = self.forecast_path(future, &x, &y) {
                                path.forecast.s1 d=(d) {}
                            }
                        }
                        div.xlabels aria-hidden="true" {
                            span { (minutes(past)) " ago" }
                            @if future > 0.0 {
                                span { "in " (minutes(future)) " (dotted line: now)" }
                            } @else {
                                span { "now" }
                            }
                        }
                    }
                }
            }
        }
    }

    /// How much of the past is shown, in seconds.
    fn past(&self) -> f64 {
        let first = self.series.iter().filter_map(|s| s.values.first()).map(|(at, _)| *at).min();
        let age = first.map_or(0.0, |at| self.now.duration_since(at).as_secs_f64());
        SPANS.iter().copied().find(|span| age <= *span).unwrap_or(3_600.0)
    }

    fn highest(&self) -> f64 {
        let values = self.series.iter().flat_map(|s| &s.values).filter_map(|(_, value)| *value);
        values.fold(0.0, f64::max)
    }

    /// A line from the last value to zero, or to the end of the plot.
    fn forecast_path(
        &self,
        future: f64,
        x: &impl Fn(f64) -> f64,
        y: &impl Fn(f64) -> f64,
    ) -> Option<String> {
        let ends = self.forecast?;
        let last = self.series.first()?.values.iter().rev().find_map(|(_, value)| *value)?;
        let at_end = last * (1.0 - future / ends).max(0.0);
        Some(format!(
            "M{} {}L{} {}",
            short(x(0.0)),
            short(y(last)),
            short(x(future)),
            short(y(at_end))
        ))
    }

    /// The plot in words.
    fn words(&self) -> String {
        let each: Vec<_> = self
            .series
            .iter()
            .map(|series| {
                let values = series.values.iter().filter_map(|(_, value)| *value);
                let most = values.fold(0.0, f64::max);
                format!(
                    "{}: now {}, at most {}{}",
                    series.name,
                    series.last_words(),
                    number(most),
                    series.unit
                )
            })
            .collect();
        format!("{}. {}.", self.title, each.join("; "))
    }
}

impl Series {
    fn last_words(&self) -> String {
        match self.values.last().and_then(|(_, value)| *value) {
            Some(value) => format!("{}{}", number(value), self.unit),
            None => "\u{2013}".to_owned(),
        }
    }

    fn path(
        &self,
        now: Timestamp,
        past: f64,
        x: &impl Fn(f64) -> f64,
        y: &impl Fn(f64) -> f64,
    ) -> String {
        let mut path = String::new();
        let mut pen = 'M';
        for (at, value) in &self.values {
            let age = now.duration_since(*at).as_secs_f64();
            match value {
                Some(value) if age <= past => {
                    path += &format!("{pen}{} {}", short(x(-age)), short(y(*value)));
                    pen = 'L';
                }
                _ => pen = 'M',
            }
        }
        path
    }
}

/// A round number that is at least this.
fn nice(highest: f64) -> f64 {
    if highest <= 1.0 {
        return 1.0;
    }
    let unit = 10_f64.powf(highest.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 10.0];
    steps.iter().map(|step| step * unit).find(|top| *top >= highest).unwrap_or(10.0 * unit)
}

/// A coordinate: a tenth of a unit cannot be seen.
fn short(coordinate: f64) -> String {
    format!("{coordinate:.1}")
}

fn minutes(secs: f64) -> String {
    if secs < 90.0 { format!("{secs:.0} s") } else { format!("{:.0} min", secs / 60.0) }
}

/// A number for people.
pub(super) fn number(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.1} G", n / 1e9),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n if n >= 100.0 || n.fract() == 0.0 => format!("{n:.0}"),
        n => format!("{n:.1}"),
    }
}

/// A whole number with its thousands apart.
pub(super) fn whole(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            // A narrow space that does not break.
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_hold_every_value() {
        // Guarantees that no line leaves the drawing, and numbers that people can read.
        for (highest, top) in [(0.0, 1.0), (3.0, 4.0), (4.1, 5.0), (11.0, 20.0), (999.0, 1000.0)] {
            assert_eq!(nice(highest), top);
        }
        assert_eq!(whole(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(
            (number(12_345.0), number(99.44), number(0.0)),
            ("12.3 k".into(), "99.4".into(), "0".into())
        );
    }

    #[test]
    fn gaps_break_the_line_and_the_forecast_ends_at_zero() {
        // Guarantees what is drawn of missing values, and where the dashed line goes.
        let now = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(1_000);
        let at = |secs: i64| now - jiff::SignedDuration::from_secs(secs);
        let values =
            vec![(at(20), Some(8.0)), (at(15), None), (at(10), Some(4.0)), (at(0), Some(4.0))];
        let plot = Plot {
            title: "Backlog",
            series: vec![Series { name: "records", unit: "", values }],
            forecast: Some(60.0),
            now,
        };
        let drawn = plot.draw().into_string();
        assert!(drawn.contains("M333.3 24.0M366.7 72.0L400.0 72.0"), "{drawn}");
        assert!(drawn.contains("M400.0 72.0L600.0 120.0"), "{drawn}");
    }
}
