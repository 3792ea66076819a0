//! The engine runs a model for many sequences at once: schedule → run → commit, step after step.
//!
//! [`Engine::add`] adds sequences, [`Engine::step`] advances all of them, and the events that it returns tell
//! what happened to each. [`Engine::generate`], [`Engine::logprobs`], [`Engine::predictions`] and
//! [`Engine::insight`] do all of this for one text at a time.

mod generation;
mod insight;
mod kept_blocks;
mod predictions;
mod saved_prompt;
mod vision;
mod worker;

pub use crate::{
    decoder::MAX_INSIGHT_TOKENS,
    prompt::{Features, OwnedPrompt, Placed, Prompt},
    scheduler::{Done, Event, FinishReason, Goal, Happened, SequenceId, Usage},
};
pub use generation::{Generation, Timing};
pub use insight::{Candidate, Insight};
pub use kept_blocks::KeptBlocks;
pub use predictions::{Predictions, Scores};
pub use saved_prompt::SavedPrompt;
pub use vision::vision_plans;
pub use worker::{Running, Sink, Sleep, Ticket, Worker};

use crate::{
    backend::{Backend, Device, DeviceInfo, wait},
    buffers::{BLOCK, Buffers, Sizes},
    capabilities::{Capabilities, Layout},
    decoder::decoder,
    error::{Error, Remedy, Result, Setting},
    model::Model,
    plan::{Mark, Plans},
    scheduler::{Batch, NewSequence, Outcome, Scheduler},
    weights::Weights,
    workload::Phase,
};
use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
    time::{Duration, Instant},
};

/// The most sequences in one decode step.
pub(crate) const GROUP: u32 = 8;
/// The limit of the context if no other is requested.
pub const DEFAULT_CONTEXT: u32 = 4096;

/// Options for loading an engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineOptions {
    /// The most positions of a sequence. `None`: the model's maximum, but at most [`DEFAULT_CONTEXT`].
    pub context: Option<u32>,
    /// The most sequences that run at once; others wait. `None`: one.
    pub sequences: Option<u32>,
    /// The number of positions that the cache holds for all sequences together, at least one context. `None`:
    /// one context per sequence. When the cache is full, the sequence that arrived last has to wait.
    pub cache: Option<u32>,
    /// The most prompt tokens in one step, at least one. More read prompts faster, and let running texts wait
    /// longer. `None`: as many as suit the device and the model, 128 to 512.
    pub chunk: Option<u32>,
    /// How many bytes of the host's memory keep prompts that no longer have room in the cache, so that they
    /// need not be read again. A multiple of a block's size; 0: none are kept.
    pub kept_bytes: u64,
    /// Whether to guess tokens from what came before, to gain several by one step. A text is the same with
    /// guesses and without, and comes sooner where it repeats itself; where guesses are wrong too often,
    /// there are none.
    pub guess: bool,
    /// Whether a prompt also reuses keys and values that decoding wrote to the cache, such as those of the
    /// last answer in a conversation, instead of computing them in a prefill. This saves time for a single
    /// user. But their last bits differ from those of a prefill, so that results depend on what ran before.
    pub share_decoded: bool,
    /// Whether the outputs of all prompt tokens will be requested, as for perplexity. Steps then hold more
    /// outputs.
    pub scores: bool,
    /// Whether [`Engine::insight`] will be used.
    pub insight: bool,
}

/// How long it took to load a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadTime {
    pub load: Duration,
    pub compile: Duration,
}

/// A model on a device, and the sequences that it runs.
pub struct Engine {
    backend: Box<dyn Backend>,
    /// The image encoder, if the model has one.
    vision: Option<vision::Encoder>,
    scheduler: Scheduler,
    kept_blocks: KeptBlocks,
    /// The submitted batches, the oldest first, and when each was submitted.
    in_flight: VecDeque<(Batch, Instant)>,
    /// Events that have not been returned yet.
    events: VecDeque<Event>,
    info: DeviceInfo,
    /// What the cache's contents follow from, besides the tokens.
    origin: String,
    eos: Vec<u32>,
    vocab_size: u32,
    /// How much of each adapter applies where a prompt does not say it.
    adapter_scales: Vec<f32>,
    pub load_time: LoadTime,
}

impl Engine {
    /// Checks the weights, writes the plans, loads the weights onto the device and compiles the programs.
    /// `progress` is called with the bytes of each part of the weights that is loaded, and the bytes of all
    /// weights.
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
        let origin = saved_prompt::origin(model, &device, &plans);
        let backend = device.prepare(plans, &progress)?;
        let compile = backend.compile_time();
        let mut scheduler = Scheduler::new(sizes, options.share_decoded);
        scheduler.keep_blocks((options.kept_bytes / backend.plans().block_bytes().max(1)) as usize);
        Ok(Self {
            backend,
            vision,
            scheduler,
            kept_blocks: KeptBlocks::default(),
            in_flight: VecDeque::new(),
            events: VecDeque::new(),
            info,
            origin,
            eos: model.eos.clone(),
            vocab_size: model.architecture.vocab_size,
            adapter_scales: model.adapters.iter().map(|adapter| adapter.scale).collect(),
            load_time: LoadTime { load: start.elapsed() - compile, compile },
        })
    }

    /// The plans that the engine runs.
    pub fn plans(&self) -> &Plans {
        self.backend.plans()
    }

    pub fn device(&self) -> &DeviceInfo {
        &self.info
    }

    /// The size of the weights on the device in bytes, including the vision encoder.
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

    /// Adds a sequence. [`Engine::step`] runs it together with the others. Sequences start in the order in
    /// which they were added.
    ///
    /// # Errors
    /// Of the kind Request if the prompt is empty, too long or contains unknown ids, or if a setting is out
    /// of range.
    pub fn add<'p>(&mut self, prompt: impl Into<Prompt<'p>>, goal: Goal) -> Result<SequenceId> {
        let prompt = prompt.into();
        self.check_prompt(prompt.tokens)?;
        self.check_goal(&goal, prompt.tokens.len())?;
        let adapters = prompt.adapters.unwrap_or(&self.adapter_scales).to_vec();
        self.check_adapters(&adapters)?;
        let (tokens, images) = (prompt.tokens.to_vec(), prompt.images.to_vec());
        Ok(self.scheduler.add(NewSequence { tokens, images, adapters, goal }))
    }

    /// Cancels a sequence. It has no more events.
    pub fn cancel(&mut self, sequence: SequenceId) {
        self.scheduler.cancel(sequence);
        self.events.retain(|event| event.sequence != sequence);
    }

    /// Whether no sequence runs or waits.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Advances the sequences by one step of the device, waits for it and returns the events. There are none
    /// if the engine is idle.
    ///
    /// # Errors
    /// If the device fails. All sequences are cancelled then.
    pub fn step(&mut self) -> Result<Vec<Event>> {
        wait(self.next_events())
    }

    /// The same as [`Engine::step`], for programs that must not block. The future must run to its end: the
    /// results of a step are lost if it is dropped while it waits for them.
    ///
    /// # Errors
    /// Those of [`Engine::step`].
    pub async fn next_events(&mut self) -> Result<Vec<Event>> {
        if self.events.is_empty() {
            self.advance().await?;
        }
        Ok(self.events.drain(..).collect())
    }

    /// Waits for the next event of one sequence. Events of the others are kept.
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

    /// Submits as many steps as the backend accepts, and waits for the oldest.
    async fn advance(&mut self) -> Result<()> {
        let outcome = self.try_advance().await;
        if outcome.is_err() {
            // The other steps in flight are useless now, but the backend needs their buffers back.
            while let Some((batch, _)) = self.in_flight.pop_front() {
                if !batch.reads.logits {
                    let _ = self.backend.picked().await;
                }
            }
            self.scheduler.clear();
            self.kept_blocks.clear();
            self.events.clear();
        }
        outcome
    }

    async fn try_advance(&mut self) -> Result<()> {
        self.events.extend(self.scheduler.start_waiting());
        if !self.events.is_empty() {
            return Ok(());
        }
        while self.in_flight.len() < self.backend.max_in_flight()
            && self.in_flight.back().is_none_or(|(batch, _)| batch.reads.allow_more())
        {
            let batch = self.scheduler.schedule();
            self.kept_blocks.carry_out(self.scheduler.moves(), &mut *self.backend).await?;
            let Some(batch) = batch else { break };
            self.write_images(&batch)?;
            let submitted = Instant::now();
            match batch.reads.logits {
                true => {
                    let (to_logits, _) = self.around_logits(batch.phase);
                    self.backend.submit_passes(batch.phase, to_logits, &batch.step)?;
                }
                false => self.backend.submit(batch.phase, &batch.step)?,
            }
            self.in_flight.push_back((batch, submitted));
        }
        let Some((batch, submitted)) = self.in_flight.pop_front() else { return Ok(()) };
        let (mut outcome, outputs) = (Outcome::default(), batch.step.outputs.len());
        if batch.reads.logits {
            // They are read before biases and penalties change them.
            let (_, from_logits) = self.around_logits(batch.phase);
            outcome.logits = self.backend.read(self.backend.plans().logits(), outputs).await?;
            self.backend.submit_passes(batch.phase, from_logits, &batch.step)?;
            outcome.picked = self.backend.read_ids().await?;
        } else {
            outcome.picked = self.backend.picked().await?;
        }
        if batch.reads.scores {
            outcome.scores = self.backend.read(self.backend.plans().scores(), outputs).await?;
        }
        if batch.reads.hidden {
            let rows = batch.step.rows.len();
            outcome.hidden = self.backend.read(self.backend.plans().hidden(), rows).await?;
        }
        // Steps behind others take longer than they cost.
        if batch.phase == Phase::Decode && self.in_flight.is_empty() {
            self.scheduler.took(&batch, submitted.elapsed());
        }
        self.events.extend(self.scheduler.commit(&batch, &outcome));
        Ok(())
    }

    /// The passes of a phase up to the one that gives the logits, and those after it.
    fn around_logits(&self, phase: Phase) -> (Range<usize>, Range<usize>) {
        let plan = self.backend.plans().of(phase);
        let after = plan.marked(Mark::Head).expect("a language model's plans") + 1;
        (0..after, after..plan.passes.len())
    }

    /// How busy the engine is.
    pub fn usage(&self) -> Usage {
        self.scheduler.usage()
    }

    /// The error for logits that are not numbers.
    pub fn not_numbers(&self) -> Error {
        let what =
            format!("the model's logits on {} are not numbers: its weights are damaged", self.info.name);
        match self.info.backend {
            "cpu" => Error::run(what + ": download them again"),
            _ => Error::run(what + ", or the device computes wrongly").with_remedy(Remedy::CompareWithCpu),
        }
    }

    fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        if prompt.is_empty() {
            let what = "the prompt is empty, and no token starts it";
            return Err(Error::request(what).with_remedy(Remedy::GiveText));
        }
        self.check_ids(prompt.iter().copied(), "the prompt holds")?;
        if prompt.len() > self.context() as usize {
            let (tokens, context) = (prompt.len(), self.context());
            let what = format!("the prompt has {tokens} tokens, but the context holds {context}");
            return Err(Error::request(what).with_remedy(Remedy::ShortenOrRaiseContext));
        }
        Ok(())
    }

    fn check_adapters(&self, scales: &[f32]) -> Result<()> {
        let known = self.adapter_scales.len();
        match scales.len() == known && scales.iter().all(|scale| scale.is_finite()) {
            true => Ok(()),
            false => Err(Error::request(format!(
                "{} scales of adapters are given, but the model has {known}: give a number for each",
                scales.len()
            ))),
        }
    }

    /// An error if one of the ids is not in the vocabulary. Its message starts with `what`.
    fn check_ids(&self, ids: impl IntoIterator<Item = u32>, what: &str) -> Result<()> {
        match ids.into_iter().find(|id| *id >= self.vocab_size) {
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
                self.check_ids(sampling.biased(), "a bias or ban is for")
            }
            Goal::Score { from, targets } => {
                if *from >= tokens || targets.len() != tokens - from {
                    return Err(Error::request(format!(
                        "{} targets are scored from token {from} on, but the prompt has {tokens}: give \
                         one for each",
                        targets.len()
                    )));
                }
                self.check_ids(targets.iter().copied(), "the targets hold")
            }
            Goal::Predict { from } | Goal::Hidden { from } if *from >= tokens => Err(Error::request(
                format!("outputs are asked for from token {from} on, but the prompt has {tokens}"),
            )),
            Goal::Predict { .. } | Goal::Hidden { .. } => Ok(()),
        }
    }
}

/// A model's plans for a device. The weights are checked, but not read yet.
pub fn plans(model: &Model, can: &Capabilities, sizes: Sizes) -> Result<Plans> {
    build_plans(model, can, sizes, false)
}

fn build_plans(model: &Model, can: &Capabilities, sizes: Sizes, insight: bool) -> Result<Plans> {
    let mut buffers = Buffers::default();
    let weights = Weights::load(
        &model.architecture,
        &model.tensors,
        &model.checkpoint,
        &model.adapters,
        &can.layout,
        &mut buffers,
    )?;
    decoder(&model.architecture, &weights, buffers, can, sizes, insight)
}

/// How many prompt tokens run in one step where nobody says it. Beside others' answers a small model on the
/// CPU has twice as many: its step is still short, and reads a prompt of some hundred tokens at once, which
/// is faster (benches/RESULTS.md).
fn default_chunk(model: &Model, can: &Capabilities, sequences: u32) -> u32 {
    const SMALL: u64 = 400_000_000;
    let is_small = model.checkpoint.values() <= SMALL;
    if sequences > 1 && is_small && can.layout == Layout::CPU { 2 * can.chunk } else { can.chunk }
}

/// The limits of a model's steps and the size of its cache, for a device.
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
    let sequences = options.sequences.unwrap_or(1).max(1);
    let chunk = options.chunk.unwrap_or_else(|| default_chunk(model, can, sequences)).max(1);
    let outputs = if options.scores || options.insight { chunk } else { GROUP };
    let outputs = u64::from(outputs).min(can.max_binding / a_row).max(1) as u32;
    let a_context = context.div_ceil(BLOCK);
    let blocks = match options.cache {
        Some(positions) => positions.div_ceil(BLOCK).max(a_context),
        None => a_context * sequences,
    };
    // A step with guesses has one row at least that is none.
    let guesses = if options.guess { GROUP.min(outputs) - 1 } else { 0 };
    let adapters = model.adapters.len() as u32;
    Ok(Sizes { rows: [chunk, GROUP], outputs, sequences, guesses, context, blocks, adapters })
}
