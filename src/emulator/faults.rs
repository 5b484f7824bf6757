//! Fault injection: the fault settings, their text and JSON forms, and the random choice of the
//! faults of one request.
//!
//! # Invariants
//! A chance is between 0 and 1, a rate limit is at least 1, an error is a 4xx or 5xx.

use std::str::FromStr;
use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::Instant;

/// Which faults occur, and how often. The default is no faults.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Faults {
    /// Requests per second before 429 with `Retry-After: 1`; bursts up to the same number.
    /// Default none.
    pub rate_limit: Option<u32>,
    /// Delay of every response in milliseconds. Default 0.
    pub latency_ms: u64,
    /// Up to this many milliseconds more, uniformly random per response. Default 0.
    pub jitter_ms: u64,
    /// Chance of an error from `error_codes` instead of the work. Default 0.
    pub error_rate: f64,
    /// The statuses to choose from, with equal chances. Default 500.
    pub error_codes: Vec<u16>,
    /// Chance that the connection is reset without a response: half of the time before the work is
    /// done, half of the time after. Default 0.
    pub reset_rate: f64,
    /// Chance that no response is sent: half of the time without the work being done. Default 0.
    pub hang_rate: f64,
    /// Whether the API key is revoked, so that every request gets 401. Default false.
    pub revoked: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            rate_limit: None,
            latency_ms: 0,
            jitter_ms: 0,
            error_rate: 0.0,
            error_codes: vec![500],
            reset_rate: 0.0,
            hang_rate: 0.0,
            revoked: false,
        }
    }
}

/// Why a fault setting is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// A chance that is not a number between 0 and 1.
    #[error("`{0}` is not a chance: write a number between 0 and 1, such as 0.05")]
    Chance(String),
    /// A rate that is neither `N` nor `N/s`.
    #[error("`{0}` is not a rate limit: write requests per second, such as 10 or 10/s")]
    RateLimit(String),
    /// A latency that is not `MS[:JITTER]`.
    #[error("`{0}` is not a latency: write milliseconds, such as 50 or 50:20 with jitter")]
    Latency(String),
    /// A list of statuses that contains another value.
    #[error("`{0}` is not an error status: write a number between 400 and 599")]
    Status(String),
    /// An error rate without statuses.
    #[error("`{0}` is not an error rate: write a chance and statuses, such as 0.1:500,503")]
    ErrorRate(String),
}

/// `--rate-limit N` or `N/s`: requests per second, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit(pub u32);

impl FromStr for RateLimit {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let number = text.strip_suffix("/s").unwrap_or(text).trim().parse::<u32>();
        match number {
            Ok(number) if number > 0 => Ok(Self(number)),
            _ => Err(FaultError::RateLimit(text.to_owned())),
        }
    }
}

/// `--latency MS[:JITTER]`, both in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Delay of every response.
    pub latency_ms: u64,
    /// Random additional delay, at most this.
    pub jitter_ms: u64,
}

impl FromStr for Latency {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (latency, jitter) = text.split_once(':').unwrap_or((text, "0"));
        match (latency.trim().parse(), jitter.trim().parse()) {
            (Ok(latency_ms), Ok(jitter_ms)) => Ok(Self { latency_ms, jitter_ms }),
            _ => Err(FaultError::Latency(text.to_owned())),
        }
    }
}

/// `--reset-rate P` and `--hang-rate P`: a chance between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chance(pub f64);

impl FromStr for Chance {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        match text.trim().parse::<f64>() {
            Ok(chance) if (0.0..=1.0).contains(&chance) => Ok(Self(chance)),
            _ => Err(FaultError::Chance(text.to_owned())),
        }
    }
}

/// `--error-rate P:CODE[,CODE…]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorRate {
    /// The chance, between 0 and 1.
    pub rate: f64,
    /// The statuses to choose from, with equal chances.
    pub codes: Vec<u16>,
}

impl FromStr for ErrorRate {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (rate, codes) =
            text.split_once(':').ok_or_else(|| FaultError::ErrorRate(text.to_owned()))?;
        let Chance(rate) = rate.parse()?;
        let codes = codes
            .split(',')
            .map(|code| match code.trim().parse::<u16>() {
                Ok(code) if (400..600).contains(&code) => Ok(code),
                _ => Err(FaultError::Status(code.trim().to_owned())),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { rate, codes })
    }
}

/// A change of the faults: absent keys keep their values.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultsPatch {
    /// `null` or 0 removes the limit.
    #[serde(default, deserialize_with = "present")]
    rate_limit: Option<Option<u32>>,
    latency_ms: Option<u64>,
    jitter_ms: Option<u64>,
    error_rate: Option<f64>,
    error_code: Option<u16>,
    error_codes: Option<Vec<u16>>,
    reset_rate: Option<f64>,
    hang_rate: Option<f64>,
    revoked: Option<bool>,
}

/// Distinguishes an explicit `null` from an absent key.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl Faults {
    /// Applies the change, or returns what is wrong and changes nothing.
    pub(super) fn patch(&mut self, patch: FaultsPatch) -> Result<(), FaultError> {
        let mut new = self.clone();
        if let Some(limit) = patch.rate_limit {
            new.rate_limit = limit.filter(|limit| *limit > 0);
        }
        new.latency_ms = patch.latency_ms.unwrap_or(new.latency_ms);
        new.jitter_ms = patch.jitter_ms.unwrap_or(new.jitter_ms);
        new.error_rate = patch.error_rate.unwrap_or(new.error_rate);
        new.reset_rate = patch.reset_rate.unwrap_or(new.reset_rate);
        new.hang_rate = patch.hang_rate.unwrap_or(new.hang_rate);
        new.revoked = patch.revoked.unwrap_or(new.revoked);
        if let Some(codes) = patch.error_codes.or(patch.error_code.map(|code| vec![code])) {
            new.error_codes = codes;
        }
        new.check()?;
        *self = new;
        Ok(())
    }

    /// Checks that every number is in its range.
    pub(super) fn check(&self) -> Result<(), FaultError> {
        for chance in [self.error_rate, self.reset_rate, self.hang_rate] {
            if !(0.0..=1.0).contains(&chance) {
                return Err(FaultError::Chance(chance.to_string()));
            }
        }
        if self.rate_limit == Some(0) {
            return Err(FaultError::RateLimit("0/s".into()));
        }
        if self.error_codes.is_empty() {
            return Err(FaultError::ErrorRate("no status at all".into()));
        }
        match self.error_codes.iter().find(|code| !(400..600).contains(*code)) {
            Some(code) => Err(FaultError::Status(code.to_string())),
            None => Ok(()),
        }
    }
}

/// Whether the response is lost before or after the work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LossMoment {
    Before,
    After,
}

/// How the response is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseLoss {
    Hang(LossMoment),
    Reset(LossMoment),
}

impl ResponseLoss {
    /// The name in the request log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Hang(LossMoment::Before) => "hang_before",
            Self::Hang(LossMoment::After) => "hang_after",
            Self::Reset(LossMoment::Before) => "reset_before",
            Self::Reset(LossMoment::After) => "reset_after",
        }
    }
}

/// The faults chosen for one request.
#[derive(Debug)]
pub(super) struct InjectedFaults {
    pub(super) loss: Option<ResponseLoss>,
    pub(super) error: Option<u16>,
    pub(super) delay: Duration,
    pub(super) revoked: bool,
}

/// The active faults, and the token bucket of the rate limit.
#[derive(Debug)]
pub(super) struct FaultState {
    pub(super) faults: Faults,
    /// Requests that are still allowed; grows as a fraction between them.
    tokens: f64,
    filled: Instant,
}

impl FaultState {
    pub(super) fn new(faults: Faults) -> Self {
        let tokens = faults.rate_limit.map_or(0.0, f64::from);
        Self { faults, tokens, filled: Instant::now() }
    }

    /// Applies a change; a new rate limit starts with a full bucket.
    pub(super) fn patch(&mut self, patch: FaultsPatch) -> Result<(), FaultError> {
        let mut faults = self.faults.clone();
        faults.patch(patch)?;
        if faults.rate_limit == self.faults.rate_limit {
            self.faults = faults;
        } else {
            *self = Self::new(faults);
        }
        Ok(())
    }

    pub(super) fn draw(&self) -> InjectedFaults {
        let mut rng = rand::rng();
        let faults = &self.faults;
        let moment = if rng.random_bool(0.5) { LossMoment::Before } else { LossMoment::After };
        let loss = if rng.random_bool(faults.hang_rate) {
            Some(ResponseLoss::Hang(moment))
        } else if rng.random_bool(faults.reset_rate) {
            Some(ResponseLoss::Reset(moment))
        } else {
            None
        };
        let error = rng
            .random_bool(faults.error_rate)
            .then(|| faults.error_codes[rng.random_range(0..faults.error_codes.len())]);
        let jitter = rng.random_range(0..=faults.jitter_ms);
        let delay = Duration::from_millis(faults.latency_ms.saturating_add(jitter));
        InjectedFaults { loss, error, delay, revoked: faults.revoked }
    }

    /// Takes one token; `false` if the rate limit is reached.
    pub(super) fn take_token(&mut self, now: Instant) -> bool {
        let Some(limit) = self.faults.rate_limit.map(f64::from) else {
            return true;
        };
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * limit;
        self.tokens = (self.tokens + gained).min(limit);
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_options_parse_or_name_the_error() {
        // Guarantees that a fault option is read as documented, and that an error names the input.
        assert_eq!("10/s".parse(), Ok(RateLimit(10)));
        assert_eq!("200".parse(), Ok(RateLimit(200)));
        for bad in ["", "/s", "0", "0/s", "-1/s", "10/m", "x/s"] {
            let error = bad.parse::<RateLimit>().unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
        assert_eq!("50".parse(), Ok(Latency { latency_ms: 50, jitter_ms: 0 }));
        assert_eq!("50:20".parse(), Ok(Latency { latency_ms: 50, jitter_ms: 20 }));
        assert!("50:".parse::<Latency>().is_err());
        assert_eq!("0.1:500,503".parse(), Ok(ErrorRate { rate: 0.1, codes: vec![500, 503] }));
        assert!(matches!("0.1".parse::<ErrorRate>(), Err(FaultError::ErrorRate(_))));
        assert!(matches!("2:500".parse::<ErrorRate>(), Err(FaultError::Chance(_))));
        assert!(matches!("0.1:200".parse::<ErrorRate>(), Err(FaultError::Status(_))));
        assert!("NaN".parse::<Chance>().is_err());
    }

    #[test]
    fn invalid_patch_changes_nothing() {
        // Guarantees that an invalid admin change leaves every fault as it was, also for its valid
        // keys.
        let mut faults = Faults { latency_ms: 5, ..Faults::default() };
        let patch = serde_json::from_str(r#"{"latency_ms": 9, "reset_rate": 1.5}"#).unwrap();
        assert!(faults.patch(patch).is_err());
        assert_eq!(faults, Faults { latency_ms: 5, ..Faults::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn rate_limit_bucket_refills_at_its_rate() {
        // Guarantees that a burst of N passes and that the bucket then refills at N per second.
        let mut state = FaultState::new(Faults { rate_limit: Some(2), ..Faults::default() });
        let now = Instant::now();
        assert!(state.take_token(now) && state.take_token(now) && !state.take_token(now));
        let later = now + Duration::from_millis(500);
        assert!(state.take_token(later) && !state.take_token(later));
    }
}
