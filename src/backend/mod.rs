//! Backends run plans, on the CPU or on a GPU through wgpu. Only this module uses wgpu.
//!
//! A backend takes steps and returns their results later ([`Pending`]). In a browser, programs await these;
//! elsewhere they may block on them with [`wait`].

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

/// A description of a device.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeviceInfo {
    /// vulkan, metal, dx12, gl or cpu.
    pub backend: &'static str,
    pub name: String,
}

/// A result that a device has yet to deliver.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A model that is loaded onto a device. Work runs in the order in which it is submitted.
pub trait Backend: Send {
    fn plans(&self) -> &Plans;

    /// The most steps that may be in flight at once. If it is more than one, the device runs a step while the
    /// host writes the next.
    fn max_in_flight(&self) -> usize;

    /// Submits a step. Its sampled ids must be read by [`Backend::picked`]; at most
    /// [`Backend::max_in_flight`] steps may wait for that.
    fn submit(&mut self, phase: Phase, step: &Step) -> Result<()>;

    /// Waits for the oldest step in flight. Returns the last sampled token of each sequence after that step.
    fn picked(&mut self) -> Pending<'_, Vec<Picked>>;

    /// Submits some passes of a phase's plan for a step.
    fn submit_passes(&mut self, phase: Phase, passes: Range<usize>, step: &Step) -> Result<()>;

    /// The first `count` rows of an activation, `[count, width]`, after all work submitted so far.
    fn read(&mut self, rows: Rows, count: usize) -> Pending<'_, Vec<f32>>;

    /// The last sampled token of each sequence after all work submitted so far.
    fn read_ids(&mut self) -> Pending<'_, Vec<Picked>>;

    /// Writes values, `[count, width]`, to the first rows of an activation, for work that is submitted from
    /// now on.
    fn write(&mut self, rows: Rows, values: &[f32]) -> Result<()>;

    /// What a block of the KV cache holds in all layers, [`Plans::block_bytes`] bytes, after all work
    /// submitted so far.
    fn read_block(&mut self, block: u32) -> Pending<'_, Vec<u8>>;

    /// Writes what such a block holds, for work that is submitted from now on.
    fn write_block(&mut self, block: u32, bytes: &[u8]) -> Result<()>;
}

/// A backend that can be timed.
pub trait Measure: Backend {
    /// How much longer it took to compile the programs than to upload the weights. Both happen at the same
    /// time.
    fn compile_time(&self) -> Duration;

    /// Runs a step and returns the time that each pass took.
    fn profile(&mut self, phase: Phase, step: &Step) -> Result<Vec<Duration>>;

    /// How long the host takes to write a step and to record its dispatches, which are then discarded; zero
    /// if the host itself computes. To be called while nothing is in flight, because a device that is made of
    /// the host's own cores would compete.
    fn encode_time(&mut self, _shape: Phase, _step: &Step) -> Duration {
        Duration::ZERO
    }

    /// How long the host took to submit the last step.
    fn submit_time(&self) -> Duration {
        Duration::ZERO
    }
}
