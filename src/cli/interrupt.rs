//! Ctrl-C: ends the output cleanly while a command watches for it, and the program at once otherwise.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The exit code that shells use for a program ended by SIGINT.
pub const EXIT_CODE: u8 = 130;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Installs the signal handler. A second Ctrl-C always ends the program.
pub fn install() {
    let handler = || {
        if INTERRUPTED.swap(true, Relaxed) || !WATCHED.load(Relaxed) {
            std::process::exit(i32::from(EXIT_CODE));
        }
    };
    if let Err(e) = ctrlc::set_handler(handler) {
        tracing::debug!("Ctrl-C ends the program at once: {e}");
    }
}

/// Call before work that checks [`interrupted`] often enough to end cleanly.
pub fn watch() {
    WATCHED.store(true, Relaxed);
}

/// Call when that work is done and the interruption handled: the next Ctrl-C ends the program.
pub fn unwatch() {
    WATCHED.store(false, Relaxed);
    INTERRUPTED.store(false, Relaxed);
}

pub fn interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}
