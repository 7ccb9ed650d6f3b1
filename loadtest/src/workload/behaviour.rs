//! What a shell task does: its outcome is computed from numbers in its command, in the shell and here alike.

use std::time::Duration;

/// How an attempt ends that nothing disturbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    Success,
    Failure,
    Skip,
}

impl Outcome {
    /// Exit code of the task's process.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            // The default of `skip_on_exit_code`.
            Self::Skip => 99,
        }
    }
}

/// What the instances of one shell task do. A number is derived from salt and map index; by it an instance fails always,
/// skips always, fails its first tries, or succeeds.
///
/// Which of these an instance does never depends on how often infrastructure lost it: `flaky_tries` is at most the
/// task's `retries`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Behaviour {
    pub salt: u32,
    /// Of 1000 instances, how many always fail.
    pub failing: u32,
    /// Of 1000 instances, how many are skipped.
    pub skipping: u32,
    /// Of 1000 instances, how many fail their first tries.
    pub flaky: u32,
    /// How many tries those fail.
    pub flaky_tries: u32,
    /// The longest sleep; each instance sleeps its own part of it.
    pub longest: Duration,
    /// Leaves a daemon behind that ignores SIGTERM.
    pub daemon: bool,
    /// One in so many repeated attempts looks for processes of earlier ones; 0: none does.
    pub scan_one_in: u32,
}

impl Behaviour {
    /// How an attempt ends that nothing disturbs.
    pub fn outcome(&self, map_index: i32, try_number: i32) -> Outcome {
        let class = self.number(map_index) % 1000;
        let failing = u64::from(self.failing);
        let skipping = failing + u64::from(self.skipping);
        let flaky = skipping + u64::from(self.flaky);
        if class < failing {
            Outcome::Failure
        } else if class < skipping {
            Outcome::Skip
        } else if class < flaky && i64::from(try_number) <= i64::from(self.flaky_tries) {
            Outcome::Failure
        } else {
            Outcome::Success
        }
    }

    /// The instance's number, below 2^32. The products stay below 2^63, the shell's largest number.
    fn number(&self, map_index: i32) -> u64 {
        let map = u64::from(map_index.wrapping_add(2).unsigned_abs());
        let x = (u64::from(self.salt) + map * 1_640_531_527) & 0xFFFF_FFFF;
        let x = ((x ^ (x >> 13)) * 1_540_483_477) & 0xFFFF_FFFF;
        x ^ (x >> 15)
    }

    /// The task's command: the step is sourced with these numbers.
    pub fn command(&self, step: &str) -> String {
        format!(
            "S={} F={} K={} R={} N={} W={} D={} P={}\n. {step}",
            self.salt,
            self.failing,
            self.skipping,
            self.flaky,
            self.flaky_tries,
            self.longest.as_millis(),
            u8::from(self.daemon),
            self.scan_one_in,
        )
    }
}
