//! What a request is sent for, for the log.

/// Names an op and the record it was made from. Every text is safe for the log, and no personal
/// data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What is done: `identify`.
    pub op: &'static str,
    /// The user it is done for.
    pub user: Option<String>,
    /// The company it is done for.
    pub company: Option<String>,
    /// Where the record came from: `logs/app.ndjson:17`.
    pub record: Option<String>,
}

impl Subject {
    /// A request that is sent for no record.
    pub const NONE: Self = Self { op: "request", user: None, company: None, record: None };
}
