//! How a text came about: its tokens and its times, as `timings` and metrics tell them.

use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How a text came about.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub prompt_tokens: usize,
    /// How many tokens of the prompt are read, and how many of these were found in the cache.
    pub read: usize,
    pub cached: usize,
    pub generated: usize,
    /// The most tokens that may be generated, if the request or the server says it.
    pub max_tokens: Option<usize>,
    /// The place among the running sequences that it has or had last.
    pub slot: u32,
    /// When it was sent to the engine, and when the engine started it.
    pub sent: Instant,
    pub started: Option<Instant>,
    /// When its first and its last token came.
    pub first: Option<Instant>,
    pub last: Option<Instant>,
}

impl Progress {
    pub fn new(prompt_tokens: usize, max_tokens: Option<usize>) -> Self {
        Self {
            prompt_tokens,
            read: 0,
            cached: 0,
            generated: 0,
            max_tokens,
            slot: 0,
            sent: Instant::now(),
            started: None,
            first: None,
            last: None,
        }
    }

    /// The time from the sequence's start to its first token, or to now; none while nothing is computed.
    pub fn prompt_time(&self) -> Duration {
        if self.first.is_none() && self.read == self.cached {
            return Duration::ZERO;
        }
        let started = self.started.unwrap_or(self.sent);
        self.first.unwrap_or_else(Instant::now).duration_since(started)
    }

    /// The time from the first token to the last one.
    pub fn decode_time(&self) -> Duration {
        self.first.zip(self.last).map_or(Duration::ZERO, |(first, last)| last.duration_since(first))
    }

    /// llama-server's `timings`. The rate of generated tokens is that of those after the first, which the
    /// prompt gives.
    pub fn timings(&self) -> Value {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let per = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        let read = self.read.saturating_sub(self.cached) as f64;
        let steps = self.generated.saturating_sub(1) as f64;
        let (prompt, decode) = (millis(self.prompt_time()), millis(self.decode_time()));
        json!({
            "cache_n": self.cached,
            "prompt_n": self.read.saturating_sub(self.cached),
            "prompt_ms": prompt,
            "prompt_per_token_ms": per(prompt, read),
            "prompt_per_second": per(1e3 * read, prompt),
            "predicted_n": self.generated,
            "predicted_ms": decode,
            "predicted_per_token_ms": per(decode, steps),
            "predicted_per_second": per(1e3 * steps, decode),
        })
    }

    /// llama-server's `prompt_progress`.
    pub fn prompt_progress(&self) -> Value {
        json!({
            "total": self.prompt_tokens,
            "cache": self.cached,
            "processed": self.read,
            "time_ms": self.prompt_time().as_millis() as u64,
        })
    }
}
