//! Token after token: one prompt's continuation.

use super::{Engine, FinishReason, Goal, Happened, Prompt, SequenceId};
use crate::{error::Result, sampling::Sampling};
use std::time::{Duration, Instant};

impl Engine {
    /// Continues a prompt with at most `max_tokens` tokens, as far as the context has room. How much of the
    /// prompt the cache holds already is not computed again.
    ///
    /// # Errors
    /// As those of [`Engine::add`].
    pub fn generate<'p>(
        &mut self,
        prompt: impl Into<Prompt<'p>>,
        sampling: Sampling,
        max_tokens: usize,
    ) -> Result<Generation<'_>> {
        let prompt = prompt.into();
        let goal = Goal::Generate { sampling, max_tokens, ends: self.eos.clone() };
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

/// Where a generation's time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// The prompt's tokens that were computed rather than found in the cache.
    pub prefill_tokens: usize,
    pub prefill: Duration,
    /// Tokens after the first, which the prefill gives.
    pub decode_tokens: usize,
    pub decode: Duration,
}

/// A generation in progress: an iterator of token ids, the one that ends the text included. Dropped, it ends.
pub struct Generation<'a> {
    engine: &'a mut Engine,
    sequence: SequenceId,
    prompt_tokens: usize,
    /// The first token, where [`Generation::read`] came upon it.
    next: Option<u32>,
    is_first: bool,
    finish: Option<FinishReason>,
    timing: Timing,
}

impl Generation<'_> {
    /// Why it ended; none while it goes on.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Reads on in the prompt: how many of its tokens are read and how many there are; none once all are. The
    /// first token waits for that anyway: this is for those who show how far it is, or may give up meanwhile.
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

    /// What happens next to it.
    fn event(&mut self) -> Result<Happened> {
        let happened = self.engine.next_event(self.sequence)?;
        match happened {
            Happened::Read { tokens, cached } => self.timing.prefill_tokens = tokens - cached,
            Happened::NotNumbers => return Err(self.engine.not_numbers()),
            _ => (),
        }
        Ok(happened)
    }

    /// The next token, as the device picks it, which goes on meanwhile with those after it.
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
        // What ends the text comes with its last token.
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
