//! What may go wrong, and how often.

/// How often each fault, and each act of a user, may still happen. What is not in here (that anything is slow) may
/// happen at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// kill -9 of a worker; its guardian lives on.
    pub kills: u8,
    /// A worker that could renew its lease does not in time: stopped, frozen, starved.
    pub pauses: u8,
    /// A worker cannot reach Redis, for any time.
    pub cuts: u8,
    /// Nobody reaches Redis, for any time.
    pub redis_outages: u8,
    /// Redis restarts empty.
    pub flushes: u8,
    /// Redis restarts with all its data.
    pub restarts: u8,
    /// Nobody reaches the broker, for any time; deliveries are void.
    pub broker_outages: u8,
    /// A message is delivered, published or applied a second time, or overtaken.
    pub duplicates: u8,
    /// The answer to a claim is lost.
    pub lost_answers: u8,
    /// The answer to a renewal takes its time.
    pub slow_answers: u8,
    /// `claim_by` comes before a message was consumed.
    pub late: u8,
    /// kill -9 of a scheduler.
    pub crashes: u8,
    /// An attempt fails of its own.
    pub failures: u8,
    /// A user cancels the run.
    pub cancels: u8,
    /// A user clears an instance.
    pub clears: u8,
}

/// Spends one of a budget; `None` when there is none left.
pub fn spend(budget: &mut u8) -> Option<()> {
    *budget = budget.checked_sub(1)?;
    Some(())
}
