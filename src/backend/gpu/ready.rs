//! Prepares dispatches: makes their bind groups, and a pipeline for each program.

use super::Gpu;
use crate::{
    buffers::Use,
    capabilities::Capabilities,
    kernel::{Dispatch, Grid, Target},
    plan::{Pass, Plans},
    shader::Program,
};
use rayon::prelude::*;
use std::{collections::HashMap, time::Instant};

/// A prepared dispatch.
pub(super) struct Ready {
    /// The index of its pipeline in the backend.
    pub pipeline: usize,
    pub operands: wgpu::BindGroup,
    pub grid: Grid,
}

/// A program and the layout of its bind group of operands.
pub(super) type Bound = (Program, wgpu::BindGroupLayout);

/// Makes the bind groups. Returns the programs, each once, and the dispatches by plan, then by pass.
pub(super) fn bind(
    gpu: &Gpu,
    can: &Capabilities,
    plans: &Plans,
    buffers: &[wgpu::Buffer],
) -> (Vec<Bound>, Vec<Vec<Vec<Ready>>>) {
    let mut layouts: HashMap<Vec<bool>, wgpu::BindGroupLayout> = HashMap::new();
    let (mut programs, mut known) = (Vec::new(), HashMap::new());
    let mut ready = |dispatch: Dispatch| {
        let writes: Vec<bool> = dispatch.uses.iter().map(|u| matches!(u, Use::Write(_))).collect();
        let layout = layouts.entry(writes.clone()).or_insert_with(|| gpu.layout(&writes, false));
        let bound = dispatch.uses.iter().map(|u| buffers[u.buffer().0 as usize].as_entire_buffer_binding());
        let operands = gpu.bind_group(dispatch.program.name, layout, bound);
        let key = (writes, dispatch.program.key());
        let pipeline = *known.entry(key).or_insert_with(|| {
            programs.push((dispatch.program, layout.clone()));
            programs.len() - 1
        });
        Ready { pipeline, operands, grid: dispatch.grid }
    };
    let mut all = Vec::new();
    for plan in &plans.plans {
        let target = Target { can, phase: plan.phase };
        let of_pass = |pass: &Pass| pass.kernel.dispatches(&target).into_iter().map(&mut ready).collect();
        all.push(plan.passes.iter().map(of_pass).collect());
    }
    (programs, all)
}

/// Compiles the programs, on all threads, and keeps the pipelines for the next run if there is a pipeline
/// cache.
pub(super) fn compile(
    gpu: &Gpu,
    programs: &[Bound],
    step_layout: &wgpu::BindGroupLayout,
) -> Vec<wgpu::ComputePipeline> {
    let start = Instant::now();
    let pipeline = |(program, layout): &Bound| gpu.pipeline(program, &[step_layout, layout]);
    let pipelines: Vec<_> = programs.par_iter().map(pipeline).collect();
    if let Some(cache) = &gpu.pipeline_cache {
        cache.keep();
    }
    tracing::debug!("{} pipelines in {:.3} s", pipelines.len(), start.elapsed().as_secs_f64());
    pipelines
}
