//! Slows the guessing of passwords down, per user name and in bounded memory.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Failures that cost nothing.
const FREE: u32 = 5;
/// Longest wait, and how long a failure is remembered.
const LONGEST: Duration = Duration::from_secs(60);
/// Names remembered at most.
const NAMES: usize = 10_000;

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// When the next attempt is allowed.
    fn until(&self) -> Instant {
        let wait = match self.count.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(over) => Duration::from_secs(1 << over.min(6)).min(LONGEST),
        };
        self.last + wait
    }
}

/// Failed attempts by user name.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<String, Failures>>);

impl Throttle {
    /// How long this name has to wait, if it has to.
    pub(crate) fn wait(&self, username: &str, now: Instant) -> Option<Duration> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = names.get(username)?.until().checked_duration_since(now)?;
        (!wait.is_zero()).then_some(wait)
    }

    pub(crate) fn failed(&self, username: &str, now: Instant) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES {
            names.retain(|_, failures| now.duration_since(failures.last) < LONGEST);
        }
        if names.len() >= NAMES {
            names.clear();
        }
        let failures = names.entry(username.to_owned()).or_insert(Failures {
            count: 0,
            last: now,
        });
        if now.duration_since(failures.last) > LONGEST {
            failures.count = 0;
        }
        failures.count += 1;
        failures.last = now;
    }

    pub(crate) fn succeeded(&self, username: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(username);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_becomes_slow_and_is_forgotten() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for _ in 0..4 {
            throttle.failed("ann", now);
        }
        assert_eq!(throttle.wait("ann", now), None);
        throttle.failed("ann", now);
        throttle.failed("ann", now);
        assert_eq!(throttle.wait("ann", now), Some(Duration::from_secs(2)));
        assert_eq!(throttle.wait("bob", now), None, "others do not suffer");
        for _ in 0..20 {
            throttle.failed("ann", now);
        }
        assert_eq!(throttle.wait("ann", now), Some(LONGEST));
        assert_eq!(throttle.wait("ann", now + LONGEST), None);
        throttle.succeeded("ann");
        assert_eq!(throttle.wait("ann", now), None);
    }
}
