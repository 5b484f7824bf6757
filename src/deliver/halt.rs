//! Halting: what to do when the credentials are refused.
//!
//! After a 401 or 403 nobody sends, except one prober at a time, which tries its own request again
//! after a backoff. Probers take turns in the order they came, so that one request that is
//! forbidden for reasons of its own does not keep the others from proving that the key is good. It
//! judges no status. The invariant: while halted, at most one attempt starts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};
use tokio::time::{Instant, sleep_until};

/// What to do when the credentials are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltPolicy {
    /// Probe for ever: an operator will cure it. For `run`.
    Wait,
    /// Give up once a second attempt has confirmed it. For `run --once`.
    GiveUp,
}

/// The first wait before a probe, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Whether sending is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltState {
    /// It is.
    Clear,
    /// Only for the prober.
    Halted {
        /// 401 or 403.
        status: u16,
    },
    /// Never again ([`HaltPolicy::GiveUp`]).
    Refused {
        /// 401 or 403.
        status: u16,
    },
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltChange {
    /// Nothing.
    None,
    /// Sending stopped.
    Halted,
    /// The probe was refused too; the next comes after this long.
    StillHalted(Duration),
    /// A probe confirmed it, and the policy says not to wait.
    GaveUp,
    /// Sending goes on.
    Resumed,
}

/// The decisions, without waiting. Pure.
#[derive(Debug, Clone)]
pub struct HaltCore {
    policy: HaltPolicy,
    state: HaltState,
    backoff: Duration,
    next_probe: Option<Instant>,
    resumed: Option<Instant>,
}

impl HaltCore {
    /// Sending is allowed.
    pub fn new(policy: HaltPolicy) -> Self {
        Self { policy, state: HaltState::Clear, backoff: FIRST, next_probe: None, resumed: None }
    }

    /// The present state.
    pub fn state(&self) -> HaltState {
        self.state
    }

    /// When the next probe may start.
    pub fn next_probe(&self) -> Option<Instant> {
        self.next_probe
    }

    /// An attempt started at `started` was answered 401 or 403.
    pub fn refused(
        &mut self,
        status: u16,
        started: Instant,
        now: Instant,
        is_probe: IsProbe,
    ) -> HaltChange {
        match (self.state, is_probe) {
            // Started before the key was good again: old news.
            (HaltState::Clear, _) if self.resumed.is_some_and(|resumed| started < resumed) => {
                HaltChange::None
            }
            (HaltState::Clear, _) => {
                self.state = HaltState::Halted { status };
                self.backoff = FIRST;
                self.next_probe = Some(now + self.backoff);
                HaltChange::Halted
            }
            (HaltState::Halted { .. }, IsProbe::Yes) if self.policy == HaltPolicy::GiveUp => {
                self.state = HaltState::Refused { status };
                HaltChange::GaveUp
            }
            (HaltState::Halted { .. }, IsProbe::Yes) => {
                self.state = HaltState::Halted { status };
                self.backoff = (self.backoff * 2).min(LONGEST);
                self.next_probe = Some(now + self.backoff);
                HaltChange::StillHalted(self.backoff)
            }
            _ => HaltChange::None,
        }
    }

    /// A probe was answered with anything that proves the key good.
    pub fn accepted(&mut self, now: Instant) -> HaltChange {
        if !matches!(self.state, HaltState::Halted { .. }) {
            return HaltChange::None;
        }
        self.state = HaltState::Clear;
        self.resumed = Some(now);
        self.next_probe = None;
        HaltChange::Resumed
    }

    /// A probe ended without saying anything about the key.
    pub fn inconclusive(&mut self, now: Instant) {
        self.next_probe = Some(now + self.backoff);
    }
}

/// Whether an attempt was the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsProbe {
    /// It was.
    Yes,
    /// It was any other.
    No,
}

/// The role of the prober; dropping it lets the next one try.
#[derive(Debug)]
pub(super) struct Role {
    _turn: OwnedMutexGuard<()>,
}

/// The shared state and the queue of probers.
#[derive(Debug)]
pub(super) struct Halt {
    core: Mutex<HaltCore>,
    state: watch::Sender<HaltState>,
    turn: Arc<AsyncMutex<()>>,
}

impl Halt {
    pub(super) fn new(policy: HaltPolicy) -> Self {
        Self {
            core: Mutex::new(HaltCore::new(policy)),
            state: watch::Sender::new(HaltState::Clear),
            turn: Arc::default(),
        }
    }

    fn core(&self) -> MutexGuard<'_, HaltCore> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch(&self) -> watch::Receiver<HaltState> {
        self.state.subscribe()
    }

    /// Whether sending is not allowed at this moment.
    pub(super) fn is_halted(&self) -> bool {
        *self.state.borrow() != HaltState::Clear
    }

    /// Whether someone with this role, or without one, may send at this moment.
    pub(super) fn allows(&self, role: Option<&Role>) -> bool {
        match *self.state.borrow() {
            HaltState::Clear => true,
            HaltState::Halted { .. } => role.is_some(),
            HaltState::Refused { .. } => false,
        }
    }

    /// Waits until sending is allowed, or for the prober's role. `Err` is the status for which
    /// sending was given up.
    pub(super) async fn admit(&self) -> Result<Option<Role>, u16> {
        let mut state = self.state.subscribe();
        loop {
            match *state.borrow_and_update() {
                HaltState::Clear => return Ok(None),
                HaltState::Refused { status } => return Err(status),
                HaltState::Halted { .. } => {}
            }
            tokio::select! {
                _ = state.changed() => {}
                role = self.next_prober() => return Ok(Some(role)),
            }
        }
    }

    async fn next_prober(&self) -> Role {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        loop {
            let next = self.core().next_probe();
            match next {
                Some(at) if at > Instant::now() => sleep_until(at).await,
                _ => return Role { _turn: turn },
            }
        }
    }

    /// An attempt was answered 401 or 403.
    pub(super) fn refused(
        &self,
        status: u16,
        started: Instant,
        now: Instant,
        role: Option<&Role>,
    ) -> HaltChange {
        let is_probe = if role.is_some() { IsProbe::Yes } else { IsProbe::No };
        let mut core = self.core();
        let change = core.refused(status, started, now, is_probe);
        self.publish(&core);
        change
    }

    /// The probe proved the key good.
    pub(super) fn accepted(&self, now: Instant) -> HaltChange {
        let mut core = self.core();
        let change = core.accepted(now);
        self.publish(&core);
        change
    }

    /// The probe said nothing about the key.
    pub(super) fn inconclusive(&self, now: Instant) {
        self.core().inconclusive(now);
    }

    fn publish(&self, core: &HaltCore) {
        let state = core.state();
        self.state.send_if_modified(|present| std::mem::replace(present, state) != state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn probes_back_off_from_one_second_to_sixty() {
        // Guarantees the series of waits, and that only the prober's answers move it.
        let mut core = HaltCore::new(HaltPolicy::Wait);
        let now = Instant::now();
        assert_eq!(core.refused(401, now, now, IsProbe::No), HaltChange::Halted);
        assert_eq!(core.next_probe(), Some(now + FIRST));
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(core.refused(403, now, now, IsProbe::No), HaltChange::None);
            match core.refused(401, now, now, IsProbe::Yes) {
                HaltChange::StillHalted(wait) => waits.push(wait.as_secs()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(core.accepted(now), HaltChange::Resumed);
        assert_eq!(core.state(), HaltState::Clear);
    }

    #[test]
    fn giving_up_takes_a_second_refusal() {
        // Guarantees that one 401 alone does not end a run.
        let mut core = HaltCore::new(HaltPolicy::GiveUp);
        let now = Instant::now();
        core.refused(401, now, now, IsProbe::No);
        core.refused(401, now, now, IsProbe::No);
        assert_eq!(core.state(), HaltState::Halted { status: 401 });
        assert_eq!(core.refused(401, now, now, IsProbe::Yes), HaltChange::GaveUp);
        assert_eq!(core.state(), HaltState::Refused { status: 401 });
        assert_eq!(core.accepted(now), HaltChange::None);
    }

    #[test]
    fn late_refusals_do_not_halt_again() {
        // Guarantees that answers to attempts older than the cure are ignored.
        let mut core = HaltCore::new(HaltPolicy::Wait);
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        core.refused(401, start, start, IsProbe::No);
        core.accepted(later);
        assert_eq!(core.refused(401, start, later, IsProbe::No), HaltChange::None);
        assert_eq!(core.refused(401, later, later, IsProbe::No), HaltChange::Halted);
    }

    #[tokio::test(start_paused = true)]
    async fn one_prober_at_a_time_and_the_role_moves_on() {
        // Guarantees that while halted one of many gets the role, that dropping it hands it to the
        // next, and that all go on once it is over.
        let halt = Halt::new(HaltPolicy::Wait);
        let now = Instant::now();
        halt.refused(401, now, now, None);
        let first = halt.admit().await.unwrap().expect("the role");
        assert_eq!(now.elapsed(), FIRST);
        assert!(halt.admit().now_or_never().is_none());
        drop(first);
        let second = halt.admit().await.unwrap().expect("the role");
        assert!(halt.allows(Some(&second)) && !halt.allows(None));
        let others = futures::future::join_all((0..5).map(|_| halt.admit()));
        let cure = async { halt.accepted(Instant::now()) };
        let (others, change) = futures::join!(others, cure);
        assert_eq!(change, HaltChange::Resumed);
        assert!(others.into_iter().all(|role| role.unwrap().is_none()));
    }
}
