//! Ctrl-C: ends the output cleanly while there is any, and the program at once otherwise.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What the shell expects of a program that SIGINT ended.
pub const EXIT_CODE: u8 = 130;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Catches the signal; a second one ends the program wherever it is.
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

/// From now on somebody asks [`interrupted`] often enough to end by it.
pub fn watch() {
    WATCHED.store(true, Relaxed);
}

/// It was heard, and nobody asks any more: the next ends the program.
pub fn unwatch() {
    WATCHED.store(false, Relaxed);
    INTERRUPTED.store(false, Relaxed);
}

pub fn interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}
