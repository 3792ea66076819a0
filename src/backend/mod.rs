//! Where plans run: on the CPU, or on a GPU through wgpu. Only this module knows wgpu.
//!
//! A backend is handed steps and gives results later ([`Pending`]): a browser awaits them, and a program on a
//! system waits for them by [`wait`].

mod adapter;
mod bandwidth;
mod cpu;
mod device;
mod gpu;
mod native;

pub use adapter::{AdapterSummary, DeviceChoice, adapters};
pub use bandwidth::Bandwidth;
pub use cpu::CpuBackend;
pub use device::Device;
pub use gpu::{Gpu, GpuBackend, GpuOptions};
pub use native::wait;

use crate::{buffers::Rows, error::Result, plan::Plans, sampling::Picked, step::Step, workload::Phase};
use std::{ops::Range, pin::Pin, time::Duration};

/// What a model runs on, in words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeviceInfo {
    /// vulkan, metal, dx12, gl or cpu.
    pub backend: &'static str,
    pub name: String,
}

/// A result that is on its way from a device.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A model made ready on a device. What is submitted runs in order.
pub trait Backend: Send {
    fn plans(&self) -> &Plans;

    /// How many steps may be in flight at once: where it is more than one, the device works at a step while
    /// the host writes the next.
    fn max_in_flight(&self) -> usize;

    /// Runs a step, and then has its ids read by [`Backend::picked`]: at most [`Backend::max_in_flight`]
    /// steps may wait for that.
    fn submit(&mut self, phase: Phase, step: &Step) -> Result<()>;

    /// The tokens last sampled for each sequence, as the oldest step in flight leaves them.
    fn picked(&mut self) -> Pending<'_, Vec<Picked>>;

    /// Runs some passes of a phase's plan over a step.
    fn submit_passes(&mut self, phase: Phase, passes: Range<usize>, step: &Step) -> Result<()>;

    /// The first `count` rows of an activation, `[count, width]`, as they are after all that was submitted.
    fn read(&mut self, rows: Rows, count: usize) -> Pending<'_, Vec<f32>>;

    /// The tokens last sampled for each sequence, as they are after all that was submitted.
    fn read_ids(&mut self) -> Pending<'_, Vec<Picked>>;

    /// Gives an activation's first rows their values, `[count, width]`, for what is submitted from now on.
    fn write(&mut self, rows: Rows, values: &[f32]) -> Result<()>;
}

/// A backend whose work is timed.
pub trait Measure: Backend {
    /// How much longer the programs took to compile than the weights to upload, which happens at the same
    /// time.
    fn compile_time(&self) -> Duration;

    /// Runs a step and says how long each of its passes took.
    fn profile(&mut self, phase: Phase, step: &Step) -> Result<Vec<Duration>>;

    /// How long the host takes to write a step and record its dispatches, which are thrown away; zero where
    /// the host itself computes. Asked while nothing is in flight, for a device that is the host's own cores
    /// competes.
    fn encode_time(&mut self, _shape: Phase, _step: &Step) -> Duration {
        Duration::ZERO
    }

    /// How long it took to hand over the last step that was submitted.
    fn submit_time(&self) -> Duration {
        Duration::ZERO
    }
}
