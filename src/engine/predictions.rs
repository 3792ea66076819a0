//! What a model makes of a text that is there.

use super::{Engine, Goal, Happened, SequenceId};
use crate::{error::Result, sampling::log_total};
use std::collections::VecDeque;

impl Engine {
    /// The natural logarithm of the probability of each of tokens[from..], given all before it; `from` is at
    /// least one.
    ///
    /// # Errors
    /// As those of [`Engine::add`].
    pub fn logprobs(&mut self, tokens: &[u32], from: usize) -> Result<Vec<f64>> {
        self.scores(tokens, from)?.collect()
    }

    /// The same one by one, for those who may give up meanwhile.
    ///
    /// # Errors
    /// As those of [`Engine::add`].
    pub fn scores(&mut self, tokens: &[u32], from: usize) -> Result<Scores<'_>> {
        assert!((1..tokens.len()).contains(&from), "a predecessor for each token");
        let goal = Goal::Score { from: from - 1, targets: tokens[from..].to_vec() };
        let sequence = self.add(&tokens[..tokens.len() - 1], goal)?;
        Ok(Scores { engine: self, sequence, left: tokens.len() - from, scores: VecDeque::new() })
    }

    /// The logits that predict each of tokens[from..], `[vocab]` each, given all before it; `from` is at
    /// least one.
    ///
    /// # Errors
    /// As those of [`Engine::add`].
    pub fn predictions(&mut self, tokens: &[u32], from: usize) -> Result<Predictions<'_>> {
        assert!((1..tokens.len()).contains(&from), "a predecessor for each token");
        let sequence = self.add(&tokens[..tokens.len() - 1], Goal::Predict { from: from - 1 })?;
        Ok(Predictions { engine: self, sequence, left: tokens.len() - from, logits: VecDeque::new() })
    }
}

/// The log-probabilities of a text's tokens, one after the other. Dropped, it ends.
pub struct Scores<'a> {
    engine: &'a mut Engine,
    sequence: SequenceId,
    /// Tokens whose scores have not been given out.
    left: usize,
    /// Those that came and have not been given out.
    scores: VecDeque<f32>,
}

impl Scores<'_> {
    fn score(&mut self) -> Result<f64> {
        loop {
            match self.scores.pop_front() {
                Some(score) if score.is_finite() => return Ok(score.into()),
                Some(_) => return Err(self.engine.not_numbers()),
                None => {
                    if let Happened::Scores(scores) = self.engine.next_event(self.sequence)? {
                        self.scores.extend(scores);
                    }
                }
            }
        }
    }
}

impl Iterator for Scores<'_> {
    type Item = Result<f64>;

    fn next(&mut self) -> Option<Result<f64>> {
        self.left = self.left.checked_sub(1)?;
        let score = self.score();
        if score.is_err() {
            self.left = 0;
        }
        Some(score)
    }
}

impl Drop for Scores<'_> {
    fn drop(&mut self) {
        self.engine.cancel(self.sequence);
    }
}

/// The logits of one token after the other. Dropped, it ends.
pub struct Predictions<'a> {
    engine: &'a mut Engine,
    sequence: SequenceId,
    /// Tokens whose logits have not been given out.
    left: usize,
    /// Those that came and have not been given out, one token's after the other's.
    logits: VecDeque<f32>,
}

impl Predictions<'_> {
    fn next_logits(&mut self) -> Result<Vec<f32>> {
        while self.logits.is_empty() {
            if let Happened::Logits(logits) = self.engine.next_event(self.sequence)? {
                self.logits = logits.into();
            }
        }
        let logits: Vec<f32> = self.logits.drain(..self.engine.vocab_size as usize).collect();
        match log_total(&logits).is_finite() {
            true => Ok(logits),
            false => Err(self.engine.not_numbers()),
        }
    }
}

impl Iterator for Predictions<'_> {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Result<Vec<f32>>> {
        self.left = self.left.checked_sub(1)?;
        let logits = self.next_logits();
        if logits.is_err() {
            self.left = 0;
        }
        Some(logits)
    }
}

impl Drop for Predictions<'_> {
    fn drop(&mut self) {
        self.engine.cancel(self.sequence);
    }
}
