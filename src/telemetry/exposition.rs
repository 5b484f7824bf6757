//! The text of `/metrics`, in the format that the client asks for.
//!
//! Each component registers metrics of its own, so the encoder repeats the head of a family for each
//! component. Readers accept each family once: here the samples of all components come under one
//! head.

use indexmap::IndexMap;

/// A text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format, which `promtool check metrics` reads.
    Prometheus,
}

impl MetricsFormat {
    /// The format for a header `Accept`: OpenMetrics only for those who ask for it.
    pub fn for_accept(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// One family: its head and the samples of all components.
#[derive(Default)]
struct MetricFamily<'t> {
    help: Option<&'t str>,
    kind: Option<&'t str>,
    samples: Vec<&'t str>,
}

/// The encoder's text with each family once.
pub(super) fn exposition(encoded: &str, format: MetricsFormat) -> String {
    let mut families: IndexMap<&str, MetricFamily<'_>> = IndexMap::new();
    let mut current = "";
    for line in encoded.lines() {
        let head = |word: &str| line.strip_prefix(word).and_then(|rest| rest.split_once(' '));
        if let Some((name, help)) = head("# HELP ") {
            current = name;
            families.entry(name).or_default().help.get_or_insert(help);
        } else if let Some((name, kind)) = head("# TYPE ") {
            current = name;
            families.entry(name).or_default().kind.get_or_insert(kind);
        } else if !line.starts_with('#') && !line.is_empty() {
            families.entry(current).or_default().samples.push(line);
        }
    }
    let mut text = String::with_capacity(encoded.len());
    for (name, family) in &families {
        family.write(name, format, &mut text);
    }
    if format == MetricsFormat::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

impl MetricFamily<'_> {
    fn write(&self, name: &str, format: MetricsFormat, text: &mut String) {
        let kind = self.kind.unwrap_or("unknown");
        // Prometheus has the suffix of a counter in the name of its family.
        let (suffix, kind) = match (format, kind) {
            (MetricsFormat::Prometheus, "counter") => ("_total", kind),
            (MetricsFormat::Prometheus, "unknown") => ("", "untyped"),
            _ => ("", kind),
        };
        if let Some(help) = self.help {
            text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
        }
        text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        for sample in &self.samples {
            text.push_str(sample);
            text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_several_components_come_under_one_head() {
        // Guarantees one head for each family, and the samples of all components in their order.
        let encoded = "# HELP a Sent.\n# TYPE a counter\na_total{c=\"1\"} 1\n# HELP b In use.\n# TYPE b gauge\nb 7\n# HELP a Sent.\n# TYPE a counter\na_total{c=\"2\"} 3\n# EOF\n";
        let text = exposition(encoded, MetricsFormat::OpenMetrics);
        let expected = "# HELP a Sent.\n# TYPE a counter\na_total{c=\"1\"} 1\na_total{c=\"2\"} 3\n# HELP b In use.\n# TYPE b gauge\nb 7\n# EOF\n";
        assert_eq!(text, expected);
        let text = exposition(encoded, MetricsFormat::Prometheus);
        assert!(text.starts_with("# HELP a_total Sent.\n# TYPE a_total counter\n"), "{text}");
        assert!(!text.contains("EOF") && text.contains("# TYPE b gauge\n"), "{text}");
    }
}
