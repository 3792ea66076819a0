//! Generates the continuation of one prompt, token by token.

use super::{Engine, FinishReason, Goal, Happened, Prompt, SequenceId};
use crate::{error::Result, sampling::Sampling};
use std::time::{Duration, Instant};

impl Engine {
    /// Continues a prompt by at most `max_tokens` tokens, or fewer if the context is full or the model ends
    /// the text. The part of the prompt that is in the cache is not computed again.
    ///
    /// # Errors
    /// Those of [`Engine::add`].
    pub fn generate<'p>(
        &mut self,
        prompt: impl Into<Prompt<'p>>,
        sampling: Sampling,
        max_tokens: usize,
    ) -> Result<Generation<'_>> {
        let prompt = prompt.into();
        let goal =
            Goal::Generate { sampling, max_tokens, ends: self.eos.clone(), logprobs: None, keep: None };
        let sequence = self.add(prompt, goal)?;
        let room = self.context() as usize - prompt.tokens.len();
        let finish = (max_tokens.min(room) == 0).then_some(FinishReason::Length);
        if finish.is_some() {
            self.cancel(sequence);
        }
        Ok(Generation {
            engine: self,
            sequence,
            prompt_tokens: prompt.tokens.len(),
            next: None,
            is_first: true,
            finish,
            timing: Timing::default(),
        })
    }
}

/// How long a generation took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// The number of prompt tokens that were computed, not found in the cache.
    pub prefill_tokens: usize,
    pub prefill: Duration,
    /// The number of tokens after the first, which the prefill gives.
    pub decode_tokens: usize,
    pub decode: Duration,
}

/// A generation in progress: an iterator over token ids, including the one that ends the text. Dropping it
/// cancels the generation.
pub struct Generation<'a> {
    engine: &'a mut Engine,
    sequence: SequenceId,
    prompt_tokens: usize,
    /// The first token, if [`Generation::read`] has already received it.
    next: Option<u32>,
    is_first: bool,
    finish: Option<FinishReason>,
    timing: Timing,
}

impl Generation<'_> {
    /// Why the generation ended; `None` while it is in progress.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Waits until the next chunk of the prompt is read. Returns how many prompt tokens are read and how many
    /// there are, or `None` once all are read. Calling this is optional, because the first token waits for
    /// the whole prompt anyway. It lets callers show progress or stop early.
    pub fn read(&mut self) -> Result<Option<(usize, usize)>> {
        if self.next.is_some() || self.finish.is_some() || !self.is_first {
            return Ok(None);
        }
        let start = Instant::now();
        let happened = self.event();
        self.timing.prefill += start.elapsed();
        match happened? {
            Happened::Token(id) => {
                self.next = Some(id);
                Ok(None)
            }
            Happened::Read { tokens, .. } if tokens < self.prompt_tokens => {
                Ok(Some((tokens, self.prompt_tokens)))
            }
            _ => self.read(),
        }
    }

    /// Waits for the sequence's next event.
    fn event(&mut self) -> Result<Happened> {
        let happened = self.engine.next_event(self.sequence)?;
        match happened {
            Happened::Read { tokens, cached } => self.timing.prefill_tokens = tokens - cached,
            Happened::NotNumbers => return Err(self.engine.not_numbers()),
            _ => (),
        }
        Ok(happened)
    }

    /// Waits for the next token. Meanwhile the device works on those after it.
    fn token(&mut self) -> Result<u32> {
        let start = Instant::now();
        let id = match self.next.take() {
            Some(id) => id,
            None => loop {
                if let Happened::Token(id) = self.event()? {
                    break id;
                }
            },
        };
        if self.is_first {
            self.timing.prefill += start.elapsed();
        } else {
            self.timing.decode += start.elapsed();
            self.timing.decode_tokens += 1;
        }
        self.is_first = false;
        // The last token and the end of the text are events of the same step.
        if !self.engine.scheduler.has(self.sequence)
            && let Happened::Finished(reason) = self.event()?
        {
            self.finish = Some(reason);
        }
        Ok(id)
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        if self.finish.is_some() {
            return None;
        }
        let token = self.token();
        if token.is_err() {
            self.finish = Some(FinishReason::Stop);
        }
        Some(token)
    }
}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        self.engine.cancel(self.sequence);
    }
}
