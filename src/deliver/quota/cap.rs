//! A limit of concurrent requests: attempts are refused only above a number in flight.

/// Higher numbers in flight are counted as this number.
const MAX_LEVEL: usize = 256;
/// Attempts at the limit after which one above it is tried.
const PROBE_EVERY: u32 = 60;
/// As many accepted attempts above the limit, with none refused between them, disprove it: one of
/// them may have found a place that had become free a moment before.
const MIN_ACCEPTED_ABOVE: u32 = 2;
/// The weight of older counts after each refusal.
const DECAY: f64 = 0.98;
/// The necessary evidence: accepted attempts at or below the limit, and how often an attempt was
/// accepted after a refusal.
const MIN_ACCEPTED: f64 = 20.0;
const MAX_MIN_ACCEPTED: f64 = 2000.0;
const MIN_ALTERNATIONS: f64 = 5.0;
/// The largest refused share at or below the limit, and the smallest above it.
const MAX_REFUSED_BELOW: f64 = 0.02;
const MIN_REFUSED_ABOVE: f64 = 0.2;
/// This many refusals at or below the limit disprove it.
const MAX_CONTRADICTIONS: f64 = 2.5;

/// Whether an attempt is one more than the limit allows, to test whether it still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CapProbe {
    No,
    Above,
}

/// How many attempts may be in flight, estimated from which ones were refused.
#[derive(Debug, Clone)]
pub(super) struct InFlightCap {
    accepted: Vec<f64>,
    refused: Vec<f64>,
    limit: Option<u32>,
    /// Attempts since the last one above the limit.
    since_probe: u32,
    step: u32,
    /// Attempts above the limit that were accepted in a row.
    accepted_above: u32,
    contradictions: f64,
    min_accepted: f64,
    alternations: f64,
}

impl InFlightCap {
    pub(super) fn new() -> Self {
        Self {
            accepted: vec![0.0; MAX_LEVEL + 1],
            refused: vec![0.0; MAX_LEVEL + 1],
            limit: None,
            since_probe: 0,
            step: 1,
            accepted_above: 0,
            contradictions: 0.0,
            min_accepted: MIN_ACCEPTED,
            alternations: 0.0,
        }
    }

    /// Starts with a limit that was known before.
    pub(super) fn with_limit(limit: u32) -> Self {
        Self { limit: Some(limit), ..Self::new() }
    }

    /// The limit, if there is one.
    pub(super) fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// How many may be in flight now, the next probe included.
    pub(super) fn allowed(&self) -> u32 {
        match self.limit {
            Some(limit) if self.since_probe >= PROBE_EVERY => limit + self.step,
            Some(limit) => limit,
            None => u32::MAX,
        }
    }

    /// Reports that an attempt starts, as number `level` of those in flight.
    pub(super) fn sent(&mut self, level: u32) -> CapProbe {
        match self.limit {
            Some(limit) if level > limit => {
                self.since_probe = 0;
                CapProbe::Above
            }
            _ => {
                self.since_probe = self.since_probe.saturating_add(1);
                CapProbe::No
            }
        }
    }

    /// Reports that an attempt that was number `level` in flight was accepted.
    pub(super) fn accepted(&mut self, level: u32, probe: CapProbe) {
        self.accepted[index(level)] += 1.0;
        let Some(limit) = self.limit else { return };
        if level >= limit {
            self.contradictions *= 0.95;
        }
        if probe == CapProbe::Above && level > limit {
            self.since_probe = PROBE_EVERY;
            self.accepted_above += 1;
            if self.accepted_above >= MIN_ACCEPTED_ABOVE {
                self.limit = Some(level);
                self.step = (self.step * 2).min(level);
            }
        }
    }

    /// Reports that an attempt that was number `level` in flight was refused.
    pub(super) fn refused(&mut self, level: u32, probe: CapProbe) {
        self.refused[index(level)] += 1.0;
        if probe == CapProbe::Above {
            self.step = 1;
            self.accepted_above = 0;
        } else if self.limit.is_some_and(|limit| level <= limit) {
            self.contradictions += 1.0;
        }
        for count in self.accepted.iter_mut().chain(&mut self.refused) {
            *count *= DECAY;
        }
        self.alternations *= DECAY;
    }

    /// Reports that an attempt was accepted after a refusal.
    pub(super) fn alternated(&mut self) {
        self.alternations += 1.0;
    }

    /// Reports that everything was refused, which shows nothing about the number in flight.
    pub(super) fn forget_evidence(&mut self) {
        self.alternations = 0.0;
        self.accepted.fill(0.0);
        self.refused.fill(0.0);
    }

    /// The highest level up to which hardly anything was refused, if much was above it.
    fn edge(&self) -> Option<u32> {
        let (all_accepted, all_refused): (f64, f64) =
            (self.accepted.iter().sum(), self.refused.iter().sum());
        let (mut accepted, mut refused, mut edge) = (0.0, 0.0, None);
        for level in 1..=MAX_LEVEL {
            accepted += self.accepted[level];
            refused += self.refused[level];
            let (above, refused_above) =
                (all_accepted + all_refused - accepted - refused, all_refused - refused);
            if accepted >= self.min_accepted
                && refused <= MAX_REFUSED_BELOW * accepted
                && refused_above >= (MIN_REFUSED_ABOVE * above).max(3.0)
            {
                edge = u32::try_from(level).ok();
            }
        }
        edge
    }

    /// Searches a limit in what was refused.
    pub(super) fn learn(&mut self) -> Option<u32> {
        if self.alternations < MIN_ALTERNATIONS {
            return None;
        }
        self.limit = self.edge();
        self.since_probe = 0;
        self.step = 1;
        self.contradictions = 0.0;
        self.limit
    }

    /// Whether the limit still explains what is refused. If not, it is removed, and the next one
    /// needs more evidence.
    pub(super) fn still_fits(&mut self) -> bool {
        let Some(limit) = self.limit else { return false };
        if self.contradictions < MAX_CONTRADICTIONS {
            return true;
        }
        if let Some(edge) = self.edge()
            && edge * 4 >= limit
        {
            self.limit = Some(edge.min(limit));
            self.contradictions = 0.0;
            return true;
        }
        let min_accepted = (self.min_accepted * 3.0).min(MAX_MIN_ACCEPTED);
        *self = Self { min_accepted, ..Self::new() };
        false
    }
}

fn index(level: u32) -> usize {
    usize::try_from(level).unwrap_or(MAX_LEVEL).min(MAX_LEVEL)
}
