//! Lines for the task's log, on stderr. The worker that reads them adds the time.

use std::fmt::Display;

/// Something that happened as it should.
pub fn info(message: impl Display) {
    eprintln!("INFO  {message}");
}

/// Something the user should look at; the work goes on.
pub fn warn(message: impl Display) {
    eprintln!("WARN  {message}");
}

/// Why the process ends.
pub fn error(message: impl Display) {
    eprintln!("ERROR {message}");
}

/// Bytes with a binary unit, for people.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}
