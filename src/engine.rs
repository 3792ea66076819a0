//! A model at work: schedule → run → sample → commit, token after token.

use crate::{
    backend::{Backend, Device, DeviceInfo},
    capabilities::Capabilities,
    decoder::decoder,
    error::{Error, Result},
    model::Model,
    plan::{Buffers, Content, Plans, Sizes},
    sampling::{Sampling, log_total},
    scheduler::{Scheduler, Slot},
    step::{BLOCK, SAMPLED},
    weights::Weights,
};
use std::time::{Duration, Instant};

/// Tokens of a prompt that run in one step.
pub(crate) const CHUNK: u32 = 128;
/// Sequences that decode in one step.
pub(crate) const GROUP: u32 = 8;
/// The context where nobody asks for one.
pub const DEFAULT_CONTEXT: u32 = 4096;

/// How an engine is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineOptions {
    /// The most positions of a sequence; none: the smaller of the model's and [`DEFAULT_CONTEXT`].
    pub context: Option<u32>,
    /// Whether the logits of every prompt token will be asked for, as for a perplexity.
    pub scores: bool,
}

/// How long a model took to be ready.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadTime {
    pub load: Duration,
    pub compile: Duration,
}

/// A model on a device.
pub struct Engine {
    backend: Box<dyn Backend>,
    scheduler: Scheduler,
    info: DeviceInfo,
    eos: Vec<u32>,
    vocab_size: u32,
    /// The sequence that the last [`Engine::resume`] left in the cache.
    kept: Option<Kept>,
    pub load_time: LoadTime,
}

/// A sequence whose tokens are in the cache, all of them.
struct Kept {
    slot: Slot,
    tokens: Vec<u32>,
}

impl Engine {
    /// Checks the weights, writes the plans and makes everything ready on the device. `progress` is told the bytes
    /// that went up and the bytes in all.
    pub fn load(
        model: &Model,
        device: Device,
        options: EngineOptions,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self> {
        let start = Instant::now();
        let can = device.capabilities();
        let sizes = sizes(model, &can, options)?;
        let plans = plans(model, &can, sizes)?;
        let total = plans.buffers.total(&sizes, |content| matches!(content, Content::Loaded(_)));
        let info = device.info();
        let backend = device.prepare(plans, &|bytes| progress(bytes, total))?;
        let compile = backend.compile_time();
        Ok(Self {
            backend,
            scheduler: Scheduler::new(sizes),
            info,
            eos: model.eos.clone(),
            vocab_size: model.architecture.vocab_size,
            kept: None,
            load_time: LoadTime { load: start.elapsed() - compile, compile },
        })
    }

    pub fn device(&self) -> &DeviceInfo {
        &self.info
    }

    /// The most positions of a sequence.
    pub fn context(&self) -> u32 {
        self.backend.plans().sizes.context
    }

    /// Continues a prompt with at most `max_tokens` tokens; an error where the prompt can't be run.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        sampling: Sampling,
        max_tokens: usize,
    ) -> Result<Generation<'_>> {
        self.forget();
        self.start(prompt, sampling, max_tokens, false)
    }

    /// The same for the turns of a conversation: how much of the prompt the last call left in the cache, its answer
    /// included, is not computed again.
    pub fn resume(
        &mut self,
        prompt: &[u32],
        sampling: Sampling,
        max_tokens: usize,
    ) -> Result<Generation<'_>> {
        self.start(prompt, sampling, max_tokens, true)
    }

    fn start(
        &mut self,
        prompt: &[u32],
        sampling: Sampling,
        max_tokens: usize,
        keeps: bool,
    ) -> Result<Generation<'_>> {
        sampling.check()?;
        self.check_prompt(prompt)?;
        let room = self.context() as usize - prompt.len();
        let left = max_tokens.min(room);
        let positions = (prompt.len() + left) as u32;
        let (slot, known) = self.take_up(prompt, positions, sampling)?;
        Ok(Generation {
            engine: self,
            slot,
            tokens: prompt.to_vec(),
            keeps,
            penalizes: sampling.penalties.are_some(),
            left,
            is_first: true,
            asked: 0,
            under_way: 0,
            finish: (left == 0).then_some(FinishReason::Length),
            timing: Timing { prefill_tokens: prompt.len() - known, ..Timing::default() },
        })
    }

    /// A sequence for a prompt, and how many of its tokens are in the cache already.
    fn take_up(&mut self, prompt: &[u32], positions: u32, sampling: Sampling) -> Result<(Slot, usize)> {
        if let Some(Kept { slot, tokens }) = self.kept.take() {
            let same = tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
            // The last token's logits are wanted, so that it runs again.
            let known = same.min(prompt.len() - 1);
            if self.scheduler.replace(slot, prompt.to_vec(), known, positions, sampling) {
                return Ok((slot, known));
            }
            self.scheduler.remove(slot);
        }
        Ok((self.add(prompt.to_vec(), prompt.len() - 1, positions, sampling)?, 0))
    }

    /// Frees what [`Engine::resume`] left in the cache.
    fn forget(&mut self) {
        if let Some(Kept { slot, .. }) = self.kept.take() {
            self.scheduler.remove(slot);
        }
    }

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

    fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        if prompt.is_empty() {
            return Err(Error::request(
                "the prompt is empty, and the model has no token that starts a text: give one",
            ));
        }
        if let Some(id) = prompt.iter().find(|id| **id >= self.vocab_size) {
            return Err(Error::request(format!(
                "the prompt holds the token id {id}, but the vocabulary ends at {}",
                self.vocab_size - 1
            )));
        }
        if prompt.len() > self.context() as usize {
            return Err(Error::request(format!(
                "the prompt has {} tokens, but the context holds {}: shorten it or raise --ctx",
                prompt.len(),
                self.context()
            )));
        }
        Ok(())
    }

    fn add(
        &mut self,
        prompt: Vec<u32>,
        outputs_from: usize,
        positions: u32,
        sampling: Sampling,
    ) -> Result<Slot> {
        let slot = self.scheduler.add(prompt, outputs_from, positions, sampling);
        slot.ok_or_else(|| Error::run("every sequence slot is taken"))
    }
}

/// A model's plans for a device, its weights checked but not yet read.
pub fn plans(model: &Model, can: &Capabilities, sizes: Sizes) -> Result<Plans> {
    let mut buffers = Buffers::default();
    let weights =
        Weights::load(&model.architecture, &model.tensors, &model.checkpoint, &can.layout, &mut buffers)?;
    decoder(&model.architecture, &weights, buffers, can, sizes)
}

/// How large a model's buffers are to be on a device.
pub fn sizes(model: &Model, can: &Capabilities, options: EngineOptions) -> Result<Sizes> {
    let architecture = &model.architecture;
    let most = architecture.max_positions;
    let context = match options.context {
        Some(0) => return Err(Error::request("--ctx is 0, but a context holds at least one token")),
        Some(asked) if asked > most => {
            return Err(Error::request(format!(
                "--ctx is {asked}, but the model was made for at most {most}"
            )));
        }
        Some(asked) => asked,
        None => most.min(DEFAULT_CONTEXT),
    };
    let a_row = u64::from(architecture.vocab_size.next_multiple_of(crate::plan::ALIGN)) * 4;
    let outputs = if options.scores { CHUNK } else { GROUP };
    let outputs = u64::from(outputs).min(can.most_binding / a_row).max(1) as u32;
    Ok(Sizes { rows: [CHUNK, GROUP], outputs, sequences: 1, context, blocks: context.div_ceil(BLOCK) })
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

/// What to say of logits that are none.
fn not_numbers(device: &DeviceInfo) -> Error {
    Error::run(format!(
        "the model's logits on {} are not numbers: its weights are damaged, or the device computes wrongly; compare \
         with --device cpu",
        device.name
    ))
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
    /// Whether these stay in the cache for the next.
    keeps: bool,
    /// Whether what was given out changes what follows, so that no step can run ahead.
    penalizes: bool,
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

    /// Runs what gives the next token, the prompt or the token before it, without waiting for it.
    fn ask(&mut self) -> Result<()> {
        let Engine { scheduler, backend, .. } = &mut *self.engine;
        if self.asked > 0 {
            // Penalties must know which it was.
            let token = if self.penalizes { *self.tokens.last().expect("given out") } else { SAMPLED };
            scheduler.push(self.slot, token);
        }
        let mut work = scheduler.next_work().expect("a token whose successor is wanted");
        while let Some(next) = scheduler.next_work() {
            backend.run(work.shape, &work.step)?;
            work = next;
        }
        backend.run_ahead(work.shape, &work.step)?;
        self.asked += 1;
        self.under_way += 1;
        Ok(())
    }

    /// The next token, as the device picks it, which goes on meanwhile with those after it.
    fn step(&mut self) -> Result<u32> {
        let start = Instant::now();
        let ahead = if self.penalizes { 1 } else { self.engine.backend.ahead() };
        while self.under_way < self.left.min(ahead) {
            self.ask()?;
        }
        self.under_way -= 1;
        let id = self.engine.backend.next_ids()?[self.slot as usize];
        if id >= self.engine.vocab_size {
            return Err(not_numbers(&self.engine.info));
        }
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
        while self.under_way > 0 && self.engine.backend.next_ids().is_ok() {
            self.under_way -= 1;
        }
        let Engine { scheduler, kept, .. } = &mut *self.engine;
        // Where nothing ran, a sequence would still be waiting to.
        if self.keeps && self.asked > 0 && self.under_way == 0 {
            let mut tokens = std::mem::take(&mut self.tokens);
            tokens.truncate(scheduler.done(self.slot));
            *kept = Some(Kept { slot: self.slot, tokens });
        } else {
            scheduler.remove(self.slot);
        }
    }
}
