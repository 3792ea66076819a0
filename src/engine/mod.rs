//! A model at work: schedule → run → sample → commit, token after token.

mod generation;
mod insight;
mod predictions;
mod sight;

pub use crate::decoder::MOST_SEEN;
pub use generation::{FinishReason, Generation, Timing};
pub use insight::{Candidate, Insight};
pub use predictions::Predictions;
pub use sight::{Features, Placed, Prompt, tower_plan};

use crate::{
    backend::{Backend, Device, DeviceInfo},
    capabilities::Capabilities,
    decoder::decoder,
    error::{Error, Result},
    model::Model,
    plan::{Buffers, Plans, Sizes},
    sampling::Sampling,
    scheduler::{Scheduler, Slot},
    step::BLOCK,
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
    /// Whether somebody will look into the model, by [`Engine::insight`].
    pub insight: bool,
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
    /// What sees images, if the model does.
    tower: Option<sight::Tower>,
    scheduler: Scheduler,
    info: DeviceInfo,
    eos: Vec<u32>,
    vocab_size: u32,
    /// The sequence that the last [`Engine::resume`] left in the cache.
    kept: Option<generation::Kept>,
    stops: fn() -> bool,
    pub load_time: LoadTime,
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
        let plans = written(model, &can, sizes, options.insight)?;
        let plan = tower_plan(model, &can)?;
        let total = plans.weights_bytes() + plan.as_ref().map_or(0, |plan| plan.plans.weights_bytes());
        let (info, progress) = (device.info(), |bytes| progress(bytes, total));
        let tower = match model.architecture.vision.as_deref().zip(plan) {
            Some((vision, plan)) => Some(sight::Tower::prepare(vision, plan, device.clone(), &progress)?),
            None => None,
        };
        let backend = device.prepare(plans, &progress)?;
        let compile = backend.compile_time();
        Ok(Self {
            backend,
            tower,
            scheduler: Scheduler::new(sizes),
            info,
            eos: model.eos.clone(),
            vocab_size: model.architecture.vocab_size,
            kept: None,
            stops: || false,
            load_time: LoadTime { load: start.elapsed() - compile, compile },
        })
    }

    /// Has whatever runs end with an error, between two steps, once `stops` says so: for programs that can be interrupted.
    pub fn stop_when(&mut self, stops: fn() -> bool) {
        self.stops = stops;
    }

    /// An error, once it is to stop.
    fn check_stop(&self) -> Result<()> {
        if (self.stops)() { Err(Error::run("it was told to stop")) } else { Ok(()) }
    }

    /// What it runs.
    pub fn plans(&self) -> &Plans {
        self.backend.plans()
    }

    pub fn device(&self) -> &DeviceInfo {
        &self.info
    }

    /// Bytes of the weights on the device, those of what sees images included.
    pub fn weights_bytes(&self) -> u64 {
        self.plans().weights_bytes() + self.tower.as_ref().map_or(0, sight::Tower::weights_bytes)
    }

    /// The most positions of a sequence.
    pub fn context(&self) -> u32 {
        self.backend.plans().sizes.context
    }

    fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        if prompt.is_empty() {
            return Err(Error::request(
                "the prompt is empty, and no token starts it: give a text, or leave --raw away",
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
    written(model, can, sizes, false)
}

fn written(model: &Model, can: &Capabilities, sizes: Sizes, insight: bool) -> Result<Plans> {
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
    let outputs = if options.scores || options.insight { CHUNK } else { GROUP };
    let outputs = u64::from(outputs).min(can.most_binding / a_row).max(1) as u32;
    Ok(Sizes { rows: [CHUNK, GROUP], outputs, sequences: 1, context, blocks: context.div_ceil(BLOCK) })
}

/// What to say of logits that are none.
fn not_numbers(device: &DeviceInfo) -> Error {
    let remedy = match device.backend {
        "cpu" => "its weights are damaged: download them again",
        _ => "its weights are damaged, or the device computes wrongly; compare with --device cpu",
    };
    Error::run(format!("the model's logits on {} are not numbers: {remedy}", device.name))
}
