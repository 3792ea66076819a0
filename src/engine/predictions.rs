//! Predictions for the tokens of a given text.

use super::{Engine, Goal, Happened, Prompt, SequenceId};
use crate::{error::Result, sampling::log_total};
use std::collections::VecDeque;

impl Engine {
    /// The natural logarithm of the probability of each of the prompt's tokens from `from` on, given all
    /// tokens before it.
    ///
    /// # Errors
    /// Those of [`Engine::add`].
    ///
    /// # Panics
    /// If `from` is 0 or not less than the number of tokens.
    pub fn logprobs<'p>(&mut self, prompt: impl Into<Prompt<'p>>, from: usize) -> Result<Vec<f64>> {
        self.scores(prompt, from)?.collect()
    }

    /// The results of [`Engine::logprobs`] one by one, for callers that may stop early.
    ///
    /// # Errors
    /// Those of [`Engine::add`].
    ///
    /// # Panics
    /// As [`Engine::logprobs`].
    pub fn scores<'p>(&mut self, prompt: impl Into<Prompt<'p>>, from: usize) -> Result<Scores<'_>> {
        let prompt = prompt.into();
        let tokens = prompt.tokens;
        assert!((1..tokens.len()).contains(&from), "a predecessor for each token");
        let goal = Goal::Score { from: from - 1, targets: tokens[from..].to_vec() };
        let sequence = self.add(Prompt { tokens: &tokens[..tokens.len() - 1], ..prompt }, goal)?;
        Ok(Scores { engine: self, sequence, left: tokens.len() - from, scores: VecDeque::new() })
    }

    /// The logits that predict each of `tokens[from..]`, `[vocab]` each, given all tokens before it.
    ///
    /// # Errors
    /// Those of [`Engine::add`].
    ///
    /// # Panics
    /// As [`Engine::logprobs`].
    pub fn predictions(&mut self, tokens: &[u32], from: usize) -> Result<Predictions<'_>> {
        assert!((1..tokens.len()).contains(&from), "a predecessor for each token");
        let sequence = self.add(&tokens[..tokens.len() - 1], Goal::Predict { from: from - 1 })?;
        Ok(Predictions { engine: self, sequence, left: tokens.len() - from, logits: VecDeque::new() })
    }
}

/// An iterator over the log-probabilities of a text's tokens. Dropping it cancels the computation.
pub struct Scores<'a> {
    engine: &'a mut Engine,
    sequence: SequenceId,
    /// The number of tokens whose scores have not been returned.
    left: usize,
    /// Scores that have arrived but have not been returned.
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

/// An iterator over the logits of one token after the other, `[vocab]` each. Dropping it cancels the
/// computation.
pub struct Predictions<'a> {
    engine: &'a mut Engine,
    sequence: SequenceId,
    /// The number of tokens whose logits have not been returned.
    left: usize,
    /// Logits that have arrived but have not been returned, `[tokens, vocab]`.
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
