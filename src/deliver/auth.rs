//! The circuit breaker for refused credentials: when sending halts and how it continues.
//!
//! After a 401 or 403 nothing is sent, except by one prober at a time, which sends its own request
//! again after a backoff. Requests become the prober in order of arrival, so that one request that
//! is forbidden for another reason does not keep the others from proving that the key is valid.
//! Statuses are classified elsewhere.
//!
//! # Invariants
//!
//! While sending is halted, at most one attempt starts.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};
use tokio::time::{Instant, sleep_until};

use crate::backoff::Backoff;

/// The first wait before a probe, and the longest.
const FIRST_PROBE_WAIT: Duration = Duration::from_secs(1);
const MAX_PROBE_WAIT: Duration = Duration::from_secs(60);

/// What a sink does when the destination refuses the API key or the sending domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAuthFailure {
    /// Halt, and probe until it is accepted again.
    Retry,
    /// Stop with [`SinkError::KeyRefused`](crate::sink::SinkError::KeyRefused).
    Abort,
}

/// Whether sending is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthBreakerState {
    /// It is allowed.
    Clear,
    /// Only the prober may send.
    Halted {
        /// 401 or 403.
        status: u16,
    },
    /// Sending has ended ([`OnAuthFailure::Abort`]).
    Refused {
        /// 401 or 403.
        status: u16,
    },
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthBreakerChange {
    /// Nothing.
    None,
    /// Sending stopped.
    Halted,
    /// The probe was refused too; the next one is sent after this time.
    StillHalted(Duration),
    /// A probe confirmed the refusal, and the policy is not to wait.
    GaveUp,
    /// Sending continues.
    Resumed {
        /// How long it was halted.
        halted_for: Duration,
        /// How often it was refused in that time.
        refusals: u64,
    },
}

/// The decisions, without waiting and without I/O.
#[derive(Debug, Clone)]
pub struct AuthBreakerCore {
    policy: OnAuthFailure,
    state: AuthBreakerState,
    backoff: Backoff,
    next_probe: Option<Instant>,
    halted: Option<Instant>,
    refusals: u64,
    resumed: Option<Instant>,
}

impl AuthBreakerCore {
    /// Sending is allowed.
    pub fn new(policy: OnAuthFailure) -> Self {
        Self {
            policy,
            state: AuthBreakerState::Clear,
            backoff: Backoff::new(FIRST_PROBE_WAIT, MAX_PROBE_WAIT),
            next_probe: None,
            halted: None,
            refusals: 0,
            resumed: None,
        }
    }

    /// The current state.
    pub fn state(&self) -> AuthBreakerState {
        self.state
    }

    /// When the next probe may start.
    pub fn next_probe(&self) -> Option<Instant> {
        self.next_probe
    }

    /// Reports that an attempt started at `started` was answered with 401 or 403.
    pub fn refused(
        &mut self,
        status: u16,
        started: Instant,
        now: Instant,
        is_probe: IsProbe,
    ) -> AuthBreakerChange {
        match (self.state, is_probe) {
            // It started before the key was accepted again, so it shows nothing.
            (AuthBreakerState::Clear, _)
                if self.resumed.is_some_and(|resumed| started < resumed) =>
            {
                AuthBreakerChange::None
            }
            (AuthBreakerState::Clear, _) => {
                self.state = AuthBreakerState::Halted { status };
                self.halted = Some(now);
                self.refusals = 1;
                self.backoff.reset();
                self.next_probe = Some(now + self.backoff.next_wait());
                AuthBreakerChange::Halted
            }
            (AuthBreakerState::Halted { .. }, IsProbe::Yes)
                if self.policy == OnAuthFailure::Abort =>
            {
                self.state = AuthBreakerState::Refused { status };
                AuthBreakerChange::GaveUp
            }
            (AuthBreakerState::Halted { .. }, IsProbe::Yes) => {
                self.state = AuthBreakerState::Halted { status };
                self.refusals += 1;
                let wait = self.backoff.next_wait();
                self.next_probe = Some(now + wait);
                AuthBreakerChange::StillHalted(wait)
            }
            _ => AuthBreakerChange::None,
        }
    }

    /// Reports that a probe was answered with anything that proves the key valid.
    pub fn accepted(&mut self, now: Instant) -> AuthBreakerChange {
        if !matches!(self.state, AuthBreakerState::Halted { .. }) {
            return AuthBreakerChange::None;
        }
        self.state = AuthBreakerState::Clear;
        self.resumed = Some(now);
        self.next_probe = None;
        let halted_for = self.halted.map(|at| now.saturating_duration_since(at));
        AuthBreakerChange::Resumed {
            halted_for: halted_for.unwrap_or_default(),
            refusals: self.refusals,
        }
    }

    /// Reports that a probe ended and showed nothing about the key.
    pub fn inconclusive(&mut self, now: Instant) {
        self.next_probe = Some(now + self.backoff.last_wait());
    }
}

/// Whether an attempt was the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsProbe {
    /// It was the probe.
    Yes,
    /// It was any other attempt.
    No,
}

/// The right to probe; dropping it passes it to the next request.
#[derive(Debug)]
pub(super) struct ProbeToken {
    _turn: OwnedMutexGuard<()>,
}

/// The shared state and the queue of probers.
#[derive(Debug)]
pub(super) struct AuthCircuitBreaker {
    core: Mutex<AuthBreakerCore>,
    state: watch::Sender<AuthBreakerState>,
    turn: Arc<AsyncMutex<()>>,
}

impl AuthCircuitBreaker {
    pub(super) fn new(policy: OnAuthFailure) -> Self {
        Self {
            core: Mutex::new(AuthBreakerCore::new(policy)),
            state: watch::Sender::new(AuthBreakerState::Clear),
            turn: Arc::default(),
        }
    }

    fn core(&self) -> MutexGuard<'_, AuthBreakerCore> {
        self.core.lock()
    }

    pub(super) fn watch(&self) -> watch::Receiver<AuthBreakerState> {
        self.state.subscribe()
    }

    /// Whether sending is not allowed at this time.
    pub(super) fn is_halted(&self) -> bool {
        *self.state.borrow() != AuthBreakerState::Clear
    }

    /// Whether a request with or without this token may be sent at this time.
    pub(super) fn allows(&self, role: Option<&ProbeToken>) -> bool {
        match *self.state.borrow() {
            AuthBreakerState::Clear => true,
            AuthBreakerState::Halted { .. } => role.is_some(),
            AuthBreakerState::Refused { .. } => false,
        }
    }

    /// Waits until sending is allowed, or for the probe token. `Err` is the status for which
    /// sending was aborted.
    pub(super) async fn admit(&self) -> Result<Option<ProbeToken>, u16> {
        let mut state = self.state.subscribe();
        loop {
            match *state.borrow_and_update() {
                AuthBreakerState::Clear => return Ok(None),
                AuthBreakerState::Refused { status } => return Err(status),
                AuthBreakerState::Halted { .. } => {}
            }
            tokio::select! {
                _ = state.changed() => {}
                role = self.next_prober() => return Ok(Some(role)),
            }
        }
    }

    async fn next_prober(&self) -> ProbeToken {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        loop {
            let next = self.core().next_probe();
            match next {
                Some(at) if at > Instant::now() => sleep_until(at).await,
                _ => return ProbeToken { _turn: turn },
            }
        }
    }

    /// Reports that an attempt was answered with 401 or 403.
    pub(super) fn refused(
        &self,
        status: u16,
        started: Instant,
        now: Instant,
        role: Option<&ProbeToken>,
    ) -> AuthBreakerChange {
        let is_probe = if role.is_some() { IsProbe::Yes } else { IsProbe::No };
        let mut core = self.core();
        let change = core.refused(status, started, now, is_probe);
        self.publish(&core);
        change
    }

    /// Reports that the probe proved the key valid.
    pub(super) fn accepted(&self, now: Instant) -> AuthBreakerChange {
        let mut core = self.core();
        let change = core.accepted(now);
        self.publish(&core);
        change
    }

    /// Reports that the probe showed nothing about the key.
    pub(super) fn inconclusive(&self, now: Instant) {
        self.core().inconclusive(now);
    }

    fn publish(&self, core: &AuthBreakerCore) {
        let state = core.state();
        self.state.send_if_modified(|present| std::mem::replace(present, state) != state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn probe_interval_grows_from_1_to_60_seconds() {
        // Guarantees the series of waits, and that only the prober's answers move it.
        let mut core = AuthBreakerCore::new(OnAuthFailure::Retry);
        let now = Instant::now();
        assert_eq!(core.refused(401, now, now, IsProbe::No), AuthBreakerChange::Halted);
        assert_eq!(core.next_probe(), Some(now + FIRST_PROBE_WAIT));
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(core.refused(403, now, now, IsProbe::No), AuthBreakerChange::None);
            match core.refused(401, now, now, IsProbe::Yes) {
                AuthBreakerChange::StillHalted(wait) => waits.push(wait.as_secs()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        let later = now + Duration::from_secs(7);
        let resumed =
            AuthBreakerChange::Resumed { halted_for: Duration::from_secs(7), refusals: 9 };
        assert_eq!(core.accepted(later), resumed);
        assert_eq!(core.state(), AuthBreakerState::Clear);
    }

    #[test]
    fn once_run_aborts_only_after_second_refusal() {
        // Guarantees that one 401 alone does not end a run.
        let mut core = AuthBreakerCore::new(OnAuthFailure::Abort);
        let now = Instant::now();
        core.refused(401, now, now, IsProbe::No);
        core.refused(401, now, now, IsProbe::No);
        assert_eq!(core.state(), AuthBreakerState::Halted { status: 401 });
        assert_eq!(core.refused(401, now, now, IsProbe::Yes), AuthBreakerChange::GaveUp);
        assert_eq!(core.state(), AuthBreakerState::Refused { status: 401 });
        assert_eq!(core.accepted(now), AuthBreakerChange::None);
    }

    #[test]
    fn late_refusal_does_not_halt_again() {
        // Guarantees that responses to attempts from before the key was accepted are ignored.
        let mut core = AuthBreakerCore::new(OnAuthFailure::Retry);
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        core.refused(401, start, start, IsProbe::No);
        core.accepted(later);
        assert_eq!(core.refused(401, start, later, IsProbe::No), AuthBreakerChange::None);
        assert_eq!(core.refused(401, later, later, IsProbe::No), AuthBreakerChange::Halted);
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_request_probes_and_dropped_probe_is_replaced() {
        // Guarantees that while sending is halted one of many gets the token, that dropping it
        // passes it to the next, and that all continue once it is over.
        let halt = AuthCircuitBreaker::new(OnAuthFailure::Retry);
        let now = Instant::now();
        halt.refused(401, now, now, None);
        let first = halt.admit().await.unwrap().expect("the role");
        assert_eq!(now.elapsed(), FIRST_PROBE_WAIT);
        assert!(halt.admit().now_or_never().is_none());
        drop(first);
        let second = halt.admit().await.unwrap().expect("the role");
        assert!(halt.allows(Some(&second)) && !halt.allows(None));
        let others = futures::future::join_all((0..5).map(|_| halt.admit()));
        let cure = async { halt.accepted(Instant::now()) };
        let (others, change) = futures::join!(others, cure);
        assert!(matches!(change, AuthBreakerChange::Resumed { refusals: 1, .. }));
        assert!(others.into_iter().all(|role| role.unwrap().is_none()));
    }
}
