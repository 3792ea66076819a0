//! What a model makes of a text that is there.

use super::{Engine, not_numbers};
use crate::{
    error::Result,
    sampling::{Sampling, log_total},
    scheduler::Slot,
};

impl Engine {
    /// The natural logarithm of the probability of each of tokens[from..], given all before it; `from` is at least
    /// one.
    pub fn logprobs(&mut self, tokens: &[u32], from: usize) -> Result<Vec<f64>> {
        let mut feed = self.feed(tokens, from)?;
        let mut logprobs = Vec::with_capacity(feed.left);
        while logprobs.len() < feed.left {
            let count = feed.step()?;
            let scores = feed.engine.backend.plans().scores;
            logprobs.extend(feed.engine.backend.read(scores, count)?.into_iter().map(f64::from));
        }
        match logprobs.iter().all(|logprob| logprob.is_finite()) {
            true => Ok(logprobs),
            false => Err(not_numbers(&feed.engine.info)),
        }
    }

    /// The logits that predict each of tokens[from..], given all before it; `from` is at least one.
    pub fn predictions<'a>(&'a mut self, tokens: &'a [u32], from: usize) -> Result<Predictions<'a>> {
        Ok(Predictions { feed: self.feed(tokens, from)?, logits: Vec::new(), given: 0 })
    }

    fn feed<'a>(&'a mut self, tokens: &'a [u32], from: usize) -> Result<Feed<'a>> {
        assert!((1..tokens.len()).contains(&from), "a predecessor for each token");
        self.check_prompt(tokens)?;
        self.forget();
        let fed = tokens.len() - 1;
        let slot = self.add(tokens[..fed].to_vec(), from - 1, fed as u32, Sampling::GREEDY)?;
        Ok(Feed { engine: self, slot, tokens, left: tokens.len() - from })
    }
}

/// A text fed to a model, step by step.
struct Feed<'a> {
    engine: &'a mut Engine,
    slot: Slot,
    tokens: &'a [u32],
    /// Tokens whose predictions have not been given out.
    left: usize,
}

impl Feed<'_> {
    /// Runs steps up to one with outputs; how many. Their targets are the tokens that follow.
    fn step(&mut self) -> Result<usize> {
        loop {
            self.engine.check_stop()?;
            let mut work = self.engine.scheduler.next_work().expect("a token whose successor is asked for");
            work.step.targets = work.outputs.iter().map(|(_, index)| self.tokens[index + 1]).collect();
            self.engine.backend.run(work.shape, &work.step)?;
            if !work.outputs.is_empty() {
                return Ok(work.outputs.len());
            }
        }
    }
}

impl Drop for Feed<'_> {
    fn drop(&mut self) {
        self.engine.scheduler.remove(self.slot);
    }
}

/// The logits of one token after the other.
pub struct Predictions<'a> {
    feed: Feed<'a>,
    /// Those of a step, one below the other, and how many were given out.
    logits: Vec<f32>,
    given: usize,
}

impl Predictions<'_> {
    fn next_logits(&mut self) -> Result<Vec<f32>> {
        let vocab_size = self.feed.engine.vocab_size as usize;
        if self.given * vocab_size == self.logits.len() {
            let count = self.feed.step()?;
            let rows = self.feed.engine.backend.plans().logits;
            (self.logits, self.given) = (self.feed.engine.backend.read(rows, count)?, 0);
        }
        let logits = self.logits[self.given * vocab_size..][..vocab_size].to_vec();
        self.given += 1;
        match log_total(&logits).is_finite() {
            true => Ok(logits),
            false => Err(not_numbers(&self.feed.engine.info)),
        }
    }
}

impl Iterator for Predictions<'_> {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Result<Vec<f32>>> {
        self.feed.left = self.feed.left.checked_sub(1)?;
        let logits = self.next_logits();
        if logits.is_err() {
            self.feed.left = 0;
        }
        Some(logits)
    }
}
