//! Token after token: a prompt's continuation, worked at a few tokens ahead of whom it tells.

use super::{Engine, Placed, Prompt, not_numbers};
use crate::{
    error::{Error, Result},
    sampling::{Picked, Sampling},
    scheduler::Slot,
    step::SAMPLED,
};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// A sequence whose tokens are in the cache, all of them.
pub(super) struct Kept {
    slot: Slot,
    tokens: Vec<u32>,
    images: Vec<Placed>,
}

impl Engine {
    /// Continues a prompt with at most `max_tokens` tokens; an error where the prompt can't be run.
    pub fn generate<'p>(
        &mut self,
        prompt: impl Into<Prompt<'p>>,
        sampling: Sampling,
        max_tokens: usize,
    ) -> Result<Generation<'_>> {
        self.forget();
        self.start(prompt.into(), sampling, max_tokens, false)
    }

    /// The same for the turns of a conversation: how much of the prompt the last call left in the cache, its answer
    /// included, is not computed again.
    pub fn resume<'p>(
        &mut self,
        prompt: impl Into<Prompt<'p>>,
        sampling: Sampling,
        max_tokens: usize,
    ) -> Result<Generation<'_>> {
        self.start(prompt.into(), sampling, max_tokens, true)
    }

    fn start(
        &mut self,
        prompt: Prompt,
        sampling: Sampling,
        max_tokens: usize,
        keeps: bool,
    ) -> Result<Generation<'_>> {
        sampling.check()?;
        let banned: BTreeSet<u32> = sampling.banned().collect();
        if banned.len() >= self.vocab_size as usize {
            return Err(Error::request("every token is banned: leave one that can be drawn"));
        }
        if let Some((id, _)) = sampling.biases.iter().find(|(id, _)| *id >= self.vocab_size) {
            return Err(Error::request(format!(
                "a bias or ban is for the token id {id}, but the vocabulary ends at {}",
                self.vocab_size - 1
            )));
        }
        self.check_prompt(prompt.tokens)?;
        let len = prompt.tokens.len();
        let room = self.context() as usize - len;
        let left = max_tokens.min(room);
        let positions = (len + left) as u32;
        let looks_back = sampling.looks_back();
        let (slot, known) = self.take_up(prompt, positions, sampling)?;
        Ok(Generation {
            engine: self,
            slot,
            tokens: prompt.tokens.to_vec(),
            images: prompt.images.to_vec(),
            keeps,
            looks_back,
            left,
            is_first: true,
            asked: 0,
            under_way: 0,
            finish: (left == 0).then_some(FinishReason::Length),
            timing: Timing { prefill_tokens: len - known, ..Timing::default() },
        })
    }

    /// A sequence for a prompt, and how many of its tokens are in the cache already.
    fn take_up(&mut self, prompt: Prompt, positions: u32, sampling: Sampling) -> Result<(Slot, usize)> {
        let (tokens, last) = (prompt.tokens, prompt.tokens.len() - 1);
        if let Some(kept) = self.kept.take() {
            let same = Prompt { tokens: &kept.tokens, images: &kept.images }.common(&prompt);
            // The last token's logits are wanted, so that it runs again.
            let known = same.min(last);
            if self.scheduler.replace(kept.slot, tokens.to_vec(), known, positions, sampling.clone()) {
                return Ok((kept.slot, known));
            }
            self.scheduler.remove(kept.slot);
        }
        Ok((self.add(tokens.to_vec(), last, positions, sampling)?, 0))
    }

    /// Frees what [`Engine::resume`] left in the cache.
    pub(super) fn forget(&mut self) {
        if let Some(Kept { slot, .. }) = self.kept.take() {
            self.scheduler.remove(slot);
        }
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model ended the text.
    Stop,
    /// As many tokens as were asked for, or as the context holds.
    Length,
}

/// Where a generation's time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    pub prefill_tokens: usize,
    pub prefill: Duration,
    /// Tokens after the first, which the prefill gives.
    pub decode_tokens: usize,
    pub decode: Duration,
}

/// A generation in progress: an iterator of token ids, the one that ends the text included.
pub struct Generation<'a> {
    engine: &'a mut Engine,
    slot: Slot,
    /// The prompt and what was given out.
    tokens: Vec<u32>,
    images: Vec<Placed>,
    /// Whether these stay in the cache for the next.
    keeps: bool,
    /// Whether what was given out changes what follows, so that no step can run ahead.
    looks_back: bool,
    left: usize,
    is_first: bool,
    /// Tokens that steps were run for.
    asked: usize,
    /// Of those, how many have not come back.
    under_way: usize,
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

    /// Reads the prompt, telling how many of its tokens are read and how many there are: for who wants to watch, since the
    /// first token's call does it otherwise.
    pub fn prefill(&mut self, progress: &dyn Fn(usize, usize)) -> Result<()> {
        if self.asked > 0 || self.finish.is_some() {
            return Ok(());
        }
        let start = Instant::now();
        self.ask(progress)?;
        self.timing.prefill += start.elapsed();
        Ok(())
    }

    /// Runs what gives the next token, the prompt or the token before it, without waiting for it.
    fn ask(&mut self, progress: &dyn Fn(usize, usize)) -> Result<()> {
        if self.asked > 0 {
            let token = if self.looks_back { *self.tokens.last().expect("given out") } else { SAMPLED };
            self.engine.scheduler.push(self.slot, token);
            return self.run_ahead().map(|_| self.asked += 1);
        }
        // As many of the prompt's chunks are under way as of tokens later.
        let mut read = VecDeque::new();
        loop {
            self.engine.check_stop()?;
            if self.run_ahead()? {
                break;
            }
            read.push_back(self.engine.scheduler.done(self.slot));
            if self.under_way == self.engine.backend.ahead() {
                self.wait_for_chunk(&mut read, progress)?;
            }
        }
        while !read.is_empty() {
            self.wait_for_chunk(&mut read, progress)?;
        }
        self.asked += 1;
        Ok(())
    }

    /// Hands the next step to the device; whether a token comes of it.
    fn run_ahead(&mut self) -> Result<bool> {
        let mut work = self.engine.scheduler.next_work().expect("a token whose successor is wanted");
        self.engine.show(&self.images, &mut work.step)?;
        self.engine.backend.run_ahead(work.shape, &work.step)?;
        self.under_way += 1;
        Ok(!work.outputs.is_empty())
    }

    /// Waits for the oldest chunk, up to which so many tokens are read.
    fn wait_for_chunk(&mut self, read: &mut VecDeque<usize>, progress: &dyn Fn(usize, usize)) -> Result<()> {
        self.under_way -= 1;
        self.engine.backend.next_picked()?;
        progress(read.pop_front().expect("a chunk under way"), self.tokens.len());
        Ok(())
    }

    /// The next token, as the device picks it, which goes on meanwhile with those after it.
    fn step(&mut self) -> Result<u32> {
        let start = Instant::now();
        let ahead = if self.looks_back { 1 } else { self.engine.backend.ahead() };
        while self.under_way < self.left.min(ahead) {
            self.ask(&|_, _| ())?;
        }
        self.under_way -= 1;
        let Picked { id, probability } = self.engine.backend.next_picked()?[self.slot as usize];
        if id >= self.engine.vocab_size {
            return Err(not_numbers(&self.engine.info));
        }
        self.engine.scheduler.learn(self.slot, probability);
        if self.is_first {
            self.timing.prefill += start.elapsed();
        } else {
            self.timing.decode += start.elapsed();
            self.timing.decode_tokens += 1;
        }
        self.is_first = false;
        Ok(id)
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        if self.finish.is_some() {
            return None;
        }
        let id = match self.step() {
            Ok(id) => id,
            Err(e) => {
                (self.finish, self.keeps) = (Some(FinishReason::Stop), false);
                return Some(Err(e));
            }
        };
        self.left -= 1;
        self.tokens.push(id);
        if self.engine.eos.contains(&id) {
            self.finish = Some(FinishReason::Stop);
        } else if self.left == 0 {
            self.finish = Some(FinishReason::Length);
        }
        Some(Ok(id))
    }
}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        // What is under way ends before anything else begins; nobody waits for its outcome.
        while self.under_way > 0 && self.engine.backend.next_picked().is_ok() {
            self.under_way -= 1;
        }
        let Engine { scheduler, kept, .. } = &mut *self.engine;
        // Where nothing ran, a sequence would still be waiting to.
        if self.keeps && self.asked > 0 && self.under_way == 0 {
            let mut tokens = std::mem::take(&mut self.tokens);
            tokens.truncate(scheduler.done(self.slot));
            let images = std::mem::take(&mut self.images);
            *kept = Some(Kept { slot: self.slot, tokens, images });
        } else {
            scheduler.remove(self.slot);
        }
    }
}
