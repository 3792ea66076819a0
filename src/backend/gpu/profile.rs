//! Measures how long each pass of a plan takes on a GPU, with timestamps before and after each dispatch.
//!
//! Each dispatch gets its own compute pass, because not every device can take timestamps within a pass. This
//! costs slightly more than the single compute pass of a normal step.

use super::{Gpu, Mapping, ready::Ready};
use crate::{
    backend::wait,
    error::{Error, Remedy, Result},
    workload::Workload,
};
use std::time::Duration;

/// The most dispatches in one submission: each takes two entries of a query set.
const MAX: usize = wgpu::QUERY_SET_MAX_QUERIES as usize / 2;

/// Runs the dispatches of all passes and returns the time of each pass. `step` is the bind group of group 0,
/// and its dynamic offset.
pub(super) fn profile(
    gpu: &Gpu,
    (passes, pipelines): (&[Vec<Ready>], &[wgpu::ComputePipeline]),
    (load, max_groups): (&Workload, u32),
    step: (&wgpu::BindGroup, u32),
) -> Result<Vec<Duration>> {
    if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
        return Err(Error::device(format!(
            "{} cannot tell how long a pass takes (it lacks timestamp queries)",
            gpu.info.name
        ))
        .with_remedy(Remedy::MeasureWithoutProfile));
    }
    let mut times = vec![Duration::ZERO; passes.len()];
    let dispatches: Vec<(usize, &Ready, [u32; 3])> = passes
        .iter()
        .enumerate()
        .flat_map(|(pass, all)| all.iter().map(move |ready| (pass, ready)))
        .filter_map(|(pass, ready)| Some((pass, ready, ready.grid.workgroups(load, max_groups)?)))
        .collect();
    for dispatches in dispatches.chunks(MAX) {
        let count = 2 * dispatches.len() as u32;
        let query_set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let bytes = u64::from(count) * 8;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let (resolved, readback) = (gpu.buffer("profile", bytes, usage), gpu.readback(bytes));
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for ((_, ready, [x, y, z]), at) in dispatches.iter().zip((0..).step_by(2)) {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &query_set,
                    beginning_of_pass_write_index: Some(at),
                    end_of_pass_write_index: Some(at + 1),
                }),
            });
            pass.set_bind_group(0, step.0, &[step.1]);
            pass.set_pipeline(&pipelines[ready.pipeline]);
            pass.set_bind_group(1, &ready.operands, &[]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
        encoder.resolve_query_set(&query_set, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &readback, 0, bytes);
        let submission = gpu.queue.submit([encoder.finish()]);
        let mapping = Mapping::of(&readback, bytes, submission);
        let stamps = wait(gpu.mapped(&readback, bytes, mapping))?;
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&stamps);
        let nanoseconds = f64::from(gpu.queue.get_timestamp_period());
        for ((pass, ..), [start, end]) in dispatches.iter().zip(stamps.as_chunks::<2>().0) {
            let ticks = end.saturating_sub(*start) as f64;
            times[*pass] += Duration::from_secs_f64(ticks * nanoseconds * 1e-9);
        }
    }
    Ok(times)
}
