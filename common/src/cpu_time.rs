//! The time that tests of costs measure: the processor's, which a busy machine does not stretch.

use std::{fs, time::Duration, time::Instant};

/// Time that this thread has spent on a processor; where the kernel does not say (it is not Linux), time that has passed.
pub(crate) fn cpu_time() -> Duration {
    static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let stat = fs::read_to_string("/proc/thread-self/schedstat");
    let nanos = stat
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| BEGAN.elapsed(), Duration::from_nanos)
}
