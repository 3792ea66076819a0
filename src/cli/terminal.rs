//! Messages and progress bars on stderr, and writing to stdout.

use super::Verbosity;
use super::words::{flag, words};
use crate::error::{Error, Result};
use indicatif::{DecimalBytes, FormattedDuration, ProgressBar, ProgressStyle};
use std::{
    fmt::{Arguments, Display},
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};
use tracing_subscriber::filter::LevelFilter;

/// The user's side of the program.
#[derive(Clone, Copy)]
pub struct Terminal {
    verbosity: Verbosity,
}

impl Terminal {
    pub fn new(verbosity: Verbosity) -> Self {
        let level = match (verbosity.verbose, verbosity.quiet) {
            (true, _) => LevelFilter::DEBUG,
            (_, true) => LevelFilter::ERROR,
            _ => LevelFilter::WARN,
        };
        let ansi =
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(level)
            .with_ansi(ansi)
            .with_target(false)
            .without_time()
            .init();
        Self { verbosity }
    }

    /// Writes a line to stderr, unless `--quiet` is given.
    pub fn say(&self, text: Arguments) {
        if !self.verbosity.quiet {
            write_stderr(format_args!("{text}\n"));
        }
    }

    /// Writes an error to stderr, with its causes if `--verbose` is given.
    pub fn fail(&self, error: &Error) {
        write_stderr(format_args!("error: {}\n", error.worded(flag, words)));
        if self.verbosity.verbose {
            let mut cause = std::error::Error::source(error);
            while let Some(error) = cause {
                write_stderr(format_args!("  because: {error}\n"));
                cause = error.source();
            }
        }
    }

    /// A progress bar. It appears only on a terminal, once the work has taken a second.
    pub fn progress(&self, what: &'static str, of: Unit) -> Progress {
        let shown = !self.verbosity.quiet && std::io::stderr().is_terminal();
        Progress { bar: ProgressBar::hidden(), what, of, shown, start: Instant::now() }
    }
}

/// Writes to stderr. Where nobody reads it any more, or it is full, the answer still counts.
pub fn write_stderr(text: Arguments) {
    use std::io::Write;
    let _ = std::io::stderr().write_fmt(text);
}

/// The unit that a progress bar counts.
#[derive(Clone, Copy)]
pub enum Unit {
    Bytes,
    Tokens,
    Layers,
}

pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    of: Unit,
    shown: bool,
    start: Instant,
}

impl Progress {
    /// Adds `count` to the progress.
    pub fn advance(&self, count: u64, total: u64) {
        self.reach(self.bar.position() + count, total);
    }

    /// Sets the progress to `count` of `total`.
    pub fn reach(&self, count: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(count);
        let elapsed = self.start.elapsed();
        if !self.shown || elapsed < Duration::from_secs(1) {
            return;
        }
        if self.bar.is_hidden() {
            let template = match self.of {
                Unit::Bytes => "{prefix} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {msg}",
                Unit::Tokens => "{prefix} {wide_bar} {pos}/{len} tokens {msg}",
                Unit::Layers => "{prefix} {wide_bar} {pos}/{len} layers {msg}",
            };
            self.bar.set_style(ProgressStyle::with_template(template).expect("a template of known keys"));
            self.bar.set_prefix(self.what);
            self.bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
        // The bar's own estimate would ignore the time before it was shown.
        let rate = count as f64 / elapsed.as_secs_f64();
        let left =
            FormattedDuration(Duration::from_secs_f64((total.saturating_sub(count) as f64 / rate).min(1e7)));
        self.bar.set_message(match self.of {
            Unit::Bytes => format!("{}/s {left}", DecimalBytes(rate as u64)),
            Unit::Tokens | Unit::Layers => left.to_string(),
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Writes text to stdout and flushes it. Returns false where the reader has gone, which is not an error:
/// `wgpt … | head -1`.
pub fn write(text: impl Display) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Error::run(format!("stdout cannot be written: {e}")).because(e)),
    }
}

/// Writes a value as one line of JSON.
pub fn write_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value).expect("plain data");
    write(text + "\n").map(|_| ())
}
