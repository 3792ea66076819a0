//! Where plans run: on the CPU, or on a GPU through wgpu. Only this module knows wgpu.

mod adapter;
mod cpu;
mod gpu;
mod upload;

pub use adapter::{AdapterSummary, Device, DeviceChoice, adapters};
pub use cpu::{Cpu, CpuBackend};
pub use gpu::{Gpu, GpuBackend, GpuOptions};

use crate::{
    error::Result,
    plan::{Buffer, Plans, Rows, Shape},
    step::Step,
    weights::Layout,
};
use std::{ops::Range, time::Duration};

/// What a device can do that plans and programs depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Subgroup operations in compute shaders.
    pub subgroups: bool,
    /// The most bytes of one binding.
    pub most_binding: u64,
    /// The most workgroups along one side of a grid.
    pub most_groups: u32,
    /// How matrices are laid out.
    pub layout: Layout,
}

impl Capabilities {
    /// The least that any WebGPU device can do.
    pub fn webgpu() -> Self {
        let most_binding = 128 << 20;
        Self { subgroups: false, most_binding, most_groups: 65535, layout: Layout::gpu(most_binding) }
    }
    /// The CPU: no limits, tensors stay where they are mapped.
    pub fn cpu() -> Self {
        Self { most_binding: u64::MAX, layout: Layout::CPU, ..Self::webgpu() }
    }
}

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

    /// How long the programs took to compile.
    fn compile_time(&self) -> Duration;

    /// Runs some passes of a shape's plan over a step.
    fn run_passes(&mut self, shape: Shape, passes: Range<usize>, step: &Step) -> Result<()>;

    /// Runs a step.
    fn run(&mut self, shape: Shape, step: &Step) -> Result<()> {
        let all = 0..self.plans().of(shape).passes.len();
        self.run_passes(shape, all, step)
    }

    /// The first `count` rows of an activation, as they are after all that was run.
    fn read(&mut self, rows: Rows, count: usize) -> Result<Vec<f32>>;

    /// The id last sampled for each sequence.
    fn ids(&mut self, ids: Buffer) -> Result<Vec<u32>>;
}
