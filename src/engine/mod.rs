//! A model at work: schedule → run → commit, step after step.
//!
//! [`Engine::add`] takes sequences in, [`Engine::step`] drives all of them, and its events say what became of
//! each. For one text at a time, [`Engine::generate`], [`Engine::logprobs`], [`Engine::predictions`] and
//! [`Engine::insight`] do both.

mod generation;
mod insight;
mod predictions;
mod vision;
mod worker;

pub use crate::{
    decoder::MAX_INSIGHT_TOKENS,
    prompt::{Features, Placed, Prompt},
    scheduler::{Event, FinishReason, Goal, Happened, SequenceId},
};
pub use generation::{Generation, Timing};
pub use insight::{Candidate, Insight};
pub use predictions::{Predictions, Scores};
pub use vision::vision_plans;
pub use worker::{Running, Worker};

use crate::{
    backend::{Backend, Device, DeviceInfo, wait},
    buffers::{BLOCK, Buffers, Sizes},
    capabilities::Capabilities,
    decoder::decoder,
    error::{Error, Remedy, Result, Setting},
    model::Model,
    plan::Plans,
    scheduler::{Batch, NewSequence, Outcome, Scheduler},
    weights::Weights,
};
use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

/// Tokens of prompts that run in one step.
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
    /// How many sequences are at work at once; none: one. Others wait.
    pub sequences: Option<u32>,
    /// How many positions the cache holds, of all sequences together, at least one context; none: a context
    /// for each. Where it is full, the sequence that came last waits.
    pub cache: Option<u32>,
    /// Whether a prompt also takes over from the cache what decoding wrote there, such as the last answer of
    /// a conversation, rather than computing it again as a prompt's. That saves one person at the machine
    /// time; the keys and values differ in their last bits from the prompt's own, so that what follows
    /// depends on what was there before.
    pub share_decoded: bool,
    /// Whether the logits of every prompt token will be asked for, as for a perplexity.
    pub scores: bool,
    /// Whether somebody will look into the model, by [`Engine::insight`].
    pub insight: bool,
}

/// How long a model took to be ready.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadTime {
    pub load: Duration,
    pub compile: Duration,
}

/// A model on a device, and the sequences that it works at.
pub struct Engine {
    backend: Box<dyn Backend>,
    /// What encodes images, if the model has it.
    vision: Option<vision::Encoder>,
    scheduler: Scheduler,
    /// The batches that the device works at, the oldest first.
    in_flight: VecDeque<Batch>,
    /// What happened and nobody has been told.
    events: VecDeque<Event>,
    info: DeviceInfo,
    eos: Vec<u32>,
    vocab_size: u32,
    pub load_time: LoadTime,
}

impl Engine {
    /// Checks the weights, writes the plans and makes everything ready on the device. `progress` is told the
    /// bytes that went up and the bytes in all.
    pub fn load(
        model: &Model,
        device: Device,
        options: EngineOptions,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self> {
        let start = Instant::now();
        let can = device.capabilities();
        let sizes = sizes(model, &can, options)?;
        let plans = build_plans(model, &can, sizes, options.insight)?;
        let encoder = vision_plans(model, &can)?;
        let total = plans.weights_bytes() + encoder.as_ref().map_or(0, Plans::weights_bytes);
        let (info, progress) = (device.info(), |bytes| progress(bytes, total));
        let vision = match model.architecture.vision.as_deref().zip(encoder) {
            Some((vision, plans)) => {
                Some(vision::Encoder::prepare(vision, plans, device.clone(), &progress)?)
            }

            None => None,
        };
        let backend = device.prepare(plans, &progress)?;
        let compile = backend.compile_time();
        Ok(Self {
            backend,
            vision,
            scheduler: Scheduler::new(sizes, options.share_decoded),
            in_flight: VecDeque::new(),
            events: VecDeque::new(),
            info,
            eos: model.eos.clone(),
            vocab_size: model.architecture.vocab_size,
            load_time: LoadTime { load: start.elapsed() - compile, compile },
        })
    }

    /// What it runs.
    pub fn plans(&self) -> &Plans {
        self.backend.plans()
    }

    pub fn device(&self) -> &DeviceInfo {
        &self.info
    }

    /// Bytes of the weights on the device, those of the vision encoder included.
    pub fn weights_bytes(&self) -> u64 {
        self.plans().weights_bytes() + self.vision.as_ref().map_or(0, vision::Encoder::weights_bytes)
    }

    /// The most positions of a sequence.
    pub fn context(&self) -> u32 {
        self.backend.plans().sizes.context
    }

    /// The ids that end a text.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Takes a sequence in, which [`Engine::step`] then works at beside the others, in the order of their
    /// arrival.
    ///
    /// # Errors
    /// Of the kind Request where the prompt is empty, too long or of unknown ids, or where a setting makes no
    /// sense.
    pub fn add<'p>(&mut self, prompt: impl Into<Prompt<'p>>, goal: Goal) -> Result<SequenceId> {
        let prompt = prompt.into();
        self.check_prompt(prompt.tokens)?;
        self.check_goal(&goal, prompt.tokens.len())?;
        let (tokens, images) = (prompt.tokens.to_vec(), prompt.images.to_vec());
        Ok(self.scheduler.add(NewSequence { tokens, images, goal }))
    }

    /// Ends a sequence before its end; no event of it comes any more.
    pub fn cancel(&mut self, sequence: SequenceId) {
        self.scheduler.cancel(sequence);
        self.events.retain(|event| event.sequence != sequence);
    }

    /// Whether no sequence is at work nor waits.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Goes on with all sequences by a step of the device, waits for it, and says what came of it; nothing
    /// where no sequence is at work.
    ///
    /// # Errors
    /// Where the device fails: all sequences are over then.
    pub fn step(&mut self) -> Result<Vec<Event>> {
        wait(self.next_events())
    }

    /// As [`Engine::step`], for programs that may not block.
    ///
    /// # Errors
    /// As those of [`Engine::step`].
    pub async fn next_events(&mut self) -> Result<Vec<Event>> {
        if self.events.is_empty() {
            self.advance().await?;
        }
        Ok(self.events.drain(..).collect())
    }

    /// The next event of one sequence; those of others wait.
    fn next_event(&mut self, sequence: SequenceId) -> Result<Happened> {
        loop {
            if let Some(at) = self.events.iter().position(|event| event.sequence == sequence) {
                return Ok(self.events.remove(at).expect("an event at its place").happened);
            }
            if !self.scheduler.has(sequence) {
                return Err(Error::run("the text was given up when the device failed: ask for it again"));
            }
            wait(self.advance())?;
        }
    }

    /// Hands the device as many steps as it takes and waits for the oldest.
    async fn advance(&mut self) -> Result<()> {
        let outcome = self.try_advance().await;
        if outcome.is_err() {
            // What else is under way is not worth a wait, but has to come back.
            while self.in_flight.pop_front().is_some() {
                let _ = self.backend.picked().await;
            }
            self.scheduler.clear();
            self.events.clear();
        }
        outcome
    }

    async fn try_advance(&mut self) -> Result<()> {
        while self.in_flight.len() < self.backend.max_in_flight()
            && self.in_flight.back().is_none_or(|batch| batch.reads.allow_more())
        {
            let Some(batch) = self.scheduler.schedule() else { break };
            self.write_images(&batch)?;
            self.backend.submit(batch.phase, &batch.step)?;
            self.in_flight.push_back(batch);
        }
        let Some(batch) = self.in_flight.pop_front() else { return Ok(()) };
        let picked = self.backend.picked().await?;
        let mut outcome = Outcome { picked, ..Outcome::default() };
        let outputs = batch.step.outputs.len();
        if batch.reads.scores {
            outcome.scores = self.backend.read(self.backend.plans().scores(), outputs).await?;
        }
        if batch.reads.logits {
            outcome.logits = self.backend.read(self.backend.plans().logits(), outputs).await?;
        }
        self.events.extend(self.scheduler.commit(&batch, &outcome));
        Ok(())
    }

    /// What to say of logits that are none.
    pub fn not_numbers(&self) -> Error {
        let what =
            format!("the model's logits on {} are not numbers: its weights are damaged", self.info.name);
        match self.info.backend {
            "cpu" => Error::run(what + ": download them again"),
            _ => Error::run(what + ", or the device computes wrongly").but(Remedy::CompareWithCpu),
        }
    }

    fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        if prompt.is_empty() {
            let what = "the prompt is empty, and no token starts it";
            return Err(Error::request(what).but(Remedy::GiveText));
        }
        self.check_ids(prompt, "the prompt holds")?;
        if prompt.len() > self.context() as usize {
            let (tokens, context) = (prompt.len(), self.context());
            let what = format!("the prompt has {tokens} tokens, but the context holds {context}");
            return Err(Error::request(what).but(Remedy::ShortenOrRaiseContext));
        }
        Ok(())
    }

    /// An error where there is an id that the vocabulary has not.
    fn check_ids<'i>(&self, ids: impl IntoIterator<Item = &'i u32>, what: &str) -> Result<()> {
        match ids.into_iter().find(|id| **id >= self.vocab_size) {
            None => Ok(()),
            Some(id) => Err(Error::request(format!(
                "{what} the token id {id}, but the vocabulary ends at {}",
                self.vocab_size - 1
            ))),
        }
    }

    fn check_goal(&self, goal: &Goal, tokens: usize) -> Result<()> {
        match goal {
            Goal::Generate { sampling, .. } => {
                sampling.check()?;
                let banned: BTreeSet<u32> = sampling.banned().collect();
                if banned.len() >= self.vocab_size as usize {
                    return Err(Error::request("every token is banned: leave one that can be drawn"));
                }
                self.check_ids(sampling.biases.iter().map(|(id, _)| id), "a bias or ban is for")
            }
            Goal::Score { from, targets } => {
                if *from >= tokens || targets.len() != tokens - from {
                    return Err(Error::request(format!(
                        "{} targets are scored from token {from} on, but the prompt has {tokens}: give \
                         one for each",
                        targets.len()
                    )));
                }
                self.check_ids(targets, "the targets hold")
            }
            Goal::Predict { from } if *from >= tokens => Err(Error::request(format!(
                "predictions are asked for from token {from} on, but the prompt has {tokens}"
            ))),
            Goal::Predict { .. } => Ok(()),
        }
    }
}

/// A model's plans for a device, its weights checked but not yet read.
pub fn plans(model: &Model, can: &Capabilities, sizes: Sizes) -> Result<Plans> {
    build_plans(model, can, sizes, false)
}

fn build_plans(model: &Model, can: &Capabilities, sizes: Sizes, insight: bool) -> Result<Plans> {
    let mut buffers = Buffers::default();
    let weights =
        Weights::load(&model.architecture, &model.tensors, &model.checkpoint, &can.layout, &mut buffers)?;
    decoder(&model.architecture, &weights, buffers, can, sizes, insight)
}

/// How large a model's buffers are to be on a device.
pub fn sizes(model: &Model, can: &Capabilities, options: EngineOptions) -> Result<Sizes> {
    let architecture = &model.architecture;
    let most = architecture.max_positions;
    let context = match options.context {
        Some(0) => {
            let what = "is 0, but a context holds at least one token";
            return Err(Error::setting(Setting::Context, what));
        }
        Some(asked) if asked > most => {
            let what = format!("is {asked}, but the model was made for at most {most}");
            return Err(Error::setting(Setting::Context, what));
        }
        Some(asked) => asked,
        None => most.min(DEFAULT_CONTEXT),
    };
    let a_row = u64::from(architecture.vocab_size.next_multiple_of(crate::buffers::ALIGN)) * 4;
    let outputs = if options.scores || options.insight { CHUNK } else { GROUP };
    let outputs = u64::from(outputs).min(can.max_binding / a_row).max(1) as u32;
    let sequences = options.sequences.unwrap_or(1).max(1);
    let a_context = context.div_ceil(BLOCK);
    let blocks = match options.cache {
        Some(positions) => positions.div_ceil(BLOCK).max(a_context),
        None => a_context * sequences,
    };
    Ok(Sizes { rows: [CHUNK, GROUP], outputs, sequences, context, blocks })
}
