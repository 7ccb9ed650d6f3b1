//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(5);

/// Doubling waits of at most 5 s, each randomly shortened by up to half so that a fleet does not reconnect in step.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    pub(super) fn next_wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(rand::random_range(0.5..=1.0));
        self.next = (self.next * 2).min(MAX);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum() {
        let mut backoff = Backoff::new();
        let mut ceiling = FIRST;
        for _ in 0..10 {
            let wait = backoff.next_wait();
            assert!(
                wait <= ceiling && wait >= ceiling / 2,
                "{wait:?} of {ceiling:?}"
            );
            ceiling = (ceiling * 2).min(MAX);
        }
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }
}
