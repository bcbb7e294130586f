//! Time that can be trusted. Ages are measured by [`Clock`], which advances with the uptime, whatever the wall clock does;
//! [`Wall`] detects jumps of the wall clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use metrics::{Gauge, describe_gauge, gauge};
use tokio::time::MissedTickBehavior;
use tracing::warn;

/// How often the wall clock is checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Smallest step of the wall clock that counts as a jump. Time services slew less: 0.5 ms a second at most.
const JUMP: SignedDuration = SignedDuration::from_secs(1);

/// A clock for ages; cheap to clone. It continues from the time that an earlier process stored, so that downtime does not
/// count; it never goes back, and is never faster than the uptime.
#[derive(Debug, Clone)]
pub struct Clock {
    inner: Arc<Begun>,
}

#[derive(Debug)]
struct Begun {
    time: Timestamp,
    at: Instant,
}

impl Clock {
    pub fn starting_at(time: Timestamp) -> Self {
        let at = Instant::now();
        Self {
            inner: Arc::new(Begun { time, at }),
        }
    }

    /// For differences only: it lags behind the wall clock by all downtime.
    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> Timestamp {
        let uptime = instant.saturating_duration_since(self.inner.at);
        let time = self.inner.time.checked_add(uptime);
        time.unwrap_or(Timestamp::MAX)
    }
}

/// The wall clock compared to the uptime.
#[derive(Debug)]
pub struct Wall {
    began: (Timestamp, Instant),
    ahead: SignedDuration,
}

impl Wall {
    pub fn new(now: Timestamp, at: Instant) -> Self {
        Self {
            began: (now, at),
            ahead: SignedDuration::ZERO,
        }
    }

    /// How far the wall clock is ahead of the uptime since the start; negative if it is behind.
    pub fn ahead(&self) -> SignedDuration {
        self.ahead
    }

    /// Returns by how much the wall clock has jumped since the last look, if it did.
    pub fn look(&mut self, now: Timestamp, at: Instant) -> Option<SignedDuration> {
        let (began, began_at) = self.began;
        let uptime = at.saturating_duration_since(began_at);
        let uptime = SignedDuration::try_from(uptime).unwrap_or(SignedDuration::MAX);
        let ahead = now.duration_since(began).saturating_sub(uptime);
        let jump = ahead.saturating_sub(self.ahead);
        self.ahead = ahead;
        (jump.abs() >= JUMP).then_some(jump)
    }
}

/// Gauge of the wall clock's drift.
#[derive(Debug)]
pub struct Metrics {
    jump: Gauge,
}

impl Metrics {
    /// Registers the gauge with the current recorder (see [`crate::telemetry`]).
    pub fn register() -> Self {
        const JUMP: &str = "odyssey_clock_jump_seconds";
        describe_gauge!(
            JUMP,
            "Seconds by which the wall clock is ahead of the uptime since the start"
        );
        Self { jump: gauge!(JUMP) }
    }
}

/// Checks the wall clock every second; logs each jump once. Never ends.
pub async fn watch(metrics: Metrics) {
    let mut wall = Wall::new(Timestamp::now(), Instant::now());
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(jump) = wall.look(Timestamp::now(), Instant::now()) {
            warn!(
                jump_ms = i64::try_from(jump.as_millis()).unwrap_or(i64::MAX),
                "the wall clock jumped; ages follow the uptime, nothing expires by it"
            );
        }
        metrics.jump.set(wall.ahead().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_advances_with_the_uptime_from_where_it_began() {
        let began = Timestamp::from_second(1_000).unwrap();
        let clock = Clock::starting_at(began);
        let at = clock.inner.at;
        assert_eq!(clock.at(at), began);
        let later = clock.at(at + Duration::from_secs(7));
        assert_eq!(later, Timestamp::from_second(1_007).unwrap());
        let end = Clock::starting_at(Timestamp::MAX);
        assert_eq!(
            end.at(end.inner.at + Duration::from_secs(7)),
            Timestamp::MAX
        );
    }

    #[test]
    fn a_jump_of_the_wall_clock_is_noticed_once_and_so_is_its_return() {
        let (now, at) = (Timestamp::from_second(1_000_000).unwrap(), Instant::now());
        let mut wall = Wall::new(now, at);
        let mut look = |uptime: u64, ahead_ms: i64| {
            let uptime = Duration::from_secs(uptime);
            let shown = now + uptime + SignedDuration::from_millis(ahead_ms);
            wall.look(shown, at + uptime)
        };
        assert_eq!(look(1, 0), None);
        assert_eq!(look(2, 400), None, "slewed");
        let two_hours = SignedDuration::from_hours(2);
        assert_eq!(look(3, 7_200_400), Some(two_hours));
        assert_eq!(look(4, 7_200_400), None);
        assert_eq!(look(5, 400), Some(-two_hours));
        assert_eq!(wall.ahead(), SignedDuration::from_millis(400));
    }
}
