//! Where plans run: on the CPU, or on a GPU through wgpu. Only this module knows wgpu.

mod adapter;
mod bandwidth;
mod cpu;
mod device;
mod executor;
mod gpu;
mod pipeline_cache;
mod profile;
mod upload;

pub use adapter::{AdapterSummary, DeviceChoice, adapters};
pub use bandwidth::Bandwidth;
pub use cpu::CpuBackend;
pub use device::Device;
pub use executor::GpuBackend;
pub use gpu::{Gpu, GpuOptions};

use crate::{
    error::Result,
    plan::{Plans, Rows, Shape},
    sampling::Picked,
    step::Step,
};
use std::{ops::Range, time::Duration};

/// What a model runs on, in words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeviceInfo {
    /// vulkan, metal, dx12, gl or cpu.
    pub backend: &'static str,
    pub name: String,
}

/// A model made ready on a device.
pub trait Backend {
    fn plans(&self) -> &Plans;

    /// How much longer the programs took to compile than the weights to go up, which happens meanwhile.
    fn compile_time(&self) -> Duration;

    /// Runs some passes of a shape's plan over a step.
    fn run_passes(&mut self, shape: Shape, passes: Range<usize>, step: &Step) -> Result<()>;

    /// Runs a step.
    fn run(&mut self, shape: Shape, step: &Step) -> Result<()> {
        let all = 0..self.plans().of(shape).passes.len();
        self.run_passes(shape, all, step)
    }

    /// Runs a step and says how long each of its passes took.
    fn profile(&mut self, shape: Shape, step: &Step) -> Result<Vec<Duration>>;

    /// How many steps are worth having under way at once: where it is more than one, a device works on a step while the
    /// next is being written.
    fn ahead(&self) -> usize;

    /// Runs a step whose ids are wanted, without waiting for them: at most [`Backend::ahead`] may be under way.
    fn run_ahead(&mut self, shape: Shape, step: &Step) -> Result<()>;

    /// How long the host takes to write a step and record its dispatches, which are thrown away; nothing where the
    /// host itself computes. Asked while nothing is under way, for a device that is the host's own cores competes.
    fn encode_time(&mut self, _shape: Shape, _step: &Step) -> Duration {
        Duration::ZERO
    }

    /// How long it took to hand over the last step that was run ahead.
    fn submit_time(&self) -> Duration {
        Duration::ZERO
    }

    /// The tokens last sampled for each sequence by the oldest step under way, once it is done.
    fn next_picked(&mut self) -> Result<Vec<Picked>>;

    /// The first `count` rows of an activation, as they are after all that was run.
    fn read(&mut self, rows: Rows, count: usize) -> Result<Vec<f32>>;

    /// Gives an activation's first rows their values, for what is run from now on.
    fn write(&mut self, rows: Rows, values: &[f32]) -> Result<()>;

    /// The token last sampled for each sequence, as it is after all that was run.
    fn picked(&mut self) -> Result<Vec<Picked>>;
}
