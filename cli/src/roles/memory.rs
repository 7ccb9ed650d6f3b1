//! Gives memory back that a busy time has left behind.
//!
//! glibc keeps what was freed in its arenas, in pieces between what is in use, and returns it to the system only at an arena's
//! end: after a run of 10,000 instances a role would keep several times what it needs for as long as it lives.

use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Growth since the last time that is worth walking through the heap for.
const WORTH_IT: u64 = 8 * 1024 * 1024;

/// As many arenas as processors instead of eight times that: what one thread has freed serves the others. To be called before
/// there are threads; a number in `MALLOC_ARENA_MAX` stands.
pub(crate) fn share() {
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        arenas(processors.try_into().unwrap_or(libc::c_int::MAX));
    }
}

#[cfg(target_env = "gnu")]
fn arenas(most: libc::c_int) {
    #[allow(
        unsafe_code,
        reason = "the allocator has no safe interface for this; the call has no precondition"
    )]
    // SAFETY: sets a number that is read when a thread allocates for the first time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, most);
    }
}

/// Other C libraries have no arenas.
#[cfg(not(target_env = "gnu"))]
fn arenas(_most: libc::c_int) {}

/// Looks for ever, in the background.
pub(super) fn give_back() {
    tokio::spawn(async {
        let mut after_last = 0;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(now) = resident() else { return };
            if now < after_last + WORTH_IT {
                after_last = after_last.min(now);
                continue;
            }
            // Takes milliseconds, and each arena's lock while it is at it.
            if tokio::task::spawn_blocking(trim).await.is_err() {
                return;
            }
            after_last = resident().unwrap_or(now);
        }
    });
}

/// Resident bytes of this process; source: `/proc/self/statm`, in pages.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[cfg(target_env = "gnu")]
fn trim() {
    #[allow(
        unsafe_code,
        reason = "the allocator has no safe interface for this; the call has no precondition"
    )]
    // SAFETY: may be called by any thread at any time; frees nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other C libraries give back by themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_lies_between_pieces_in_use_is_given_back() {
        // Every other piece is kept, so that no end of the heap is free; each is a page and more, and too small for a mapping
        // of its own.
        let mut pieces: Vec<Option<Vec<u8>>> = (0..4000).map(|_| Some(vec![1; 20_000])).collect();
        pieces.iter_mut().step_by(2).for_each(|piece| *piece = None);
        let before = resident().unwrap();
        trim();
        let after = resident().unwrap();
        assert!(after + 20 * 1024 * 1024 < before, "{before} → {after}");
        drop(pieces);
    }
}
