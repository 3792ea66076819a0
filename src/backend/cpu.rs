//! The CPU executor: runs the Rust code of each pass.

use super::{Backend, Measure, Pending};
use crate::{
    buffers::Rows,
    error::{Error, Remedy, Result},
    memory::Memory,
    plan::Plans,
    sampling::Picked,
    simd::{Cpu, Math},
    step::Step,
    workload::Phase,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    future::ready,
    ops::Range,
    time::{Duration, Instant},
};

/// Whether so many bytes can be allocated. Asks the system's allocator, for a program's own may end the
/// program where it has none.
fn are_free(bytes: u64) -> bool {
    let Ok(bytes) = usize::try_from(bytes) else { return false };
    let Ok(layout) = Layout::from_size_align(bytes.max(1), 1) else { return false };
    // SAFETY: the layout is not empty, and the memory is given back with the layout that it was got with.
    unsafe {
        let memory = std::hint::black_box(System.alloc(layout));
        if memory.is_null() {
            return false;
        }
        System.dealloc(memory, layout);
    }
    true
}

/// A model on the CPU.
pub struct CpuBackend {
    plans: Plans,
    memory: Memory,
    cpu: Cpu,
    plain: bool,
}

impl CpuBackend {
    /// Reads the weights, except those that the mapped file already holds in the right form. `progress` is
    /// called with the bytes of each buffer of weights once it is ready.
    pub fn prepare(plans: Plans, threads: usize, math: Math, progress: &dyn Fn(u64)) -> Result<Self> {
        let cpu = Cpu::new(threads, math)
            .map_err(|e| Error::memory(format!("{threads} threads could not be started: {e}")).because(e))?;
        // Tries one allocation of the whole size first, because a later allocation that fails ends the
        // process.
        let bytes = Memory::own_bytes(&plans.buffers, &plans.sizes);
        if !are_free(bytes) {
            return Err(Error::memory(format!(
                "the model needs {} MiB of memory beside its mapped weights, more than there is",
                bytes >> 20
            ))
            .with_remedy(Remedy::LowerContext));
        }
        let memory = Memory::new(&plans.buffers, &plans.sizes, progress);
        Ok(Self { plans, memory, cpu, plain: false })
    }

    /// The same model, but each pass runs the plain definition of its kernel.
    pub fn plain(self) -> Self {
        Self { plain: true, ..self }
    }
}

impl Backend for CpuBackend {
    fn plans(&self) -> &Plans {
        &self.plans
    }
    fn max_in_flight(&self) -> usize {
        1
    }
    fn submit(&mut self, phase: Phase, step: &Step) -> Result<()> {
        self.submit_passes(phase, 0..self.plans.of(phase).passes.len(), step)
    }
    fn picked(&mut self) -> Pending<'_, Vec<Picked>> {
        self.read_ids()
    }
    fn submit_passes(&mut self, phase: Phase, passes: Range<usize>, step: &Step) -> Result<()> {
        let Self { plans, memory, cpu, plain } = &*self;
        for pass in &plans.of(phase).passes[passes] {
            match plain {
                true => pass.kernel.run(memory, step),
                false => pass.kernel.run_fast(memory, step, phase, cpu),
            }
        }
        Ok(())
    }
    fn read(&mut self, rows: Rows, count: usize) -> Pending<'_, Vec<f32>> {
        Box::pin(ready(Ok(self.memory.rows(rows, count))))
    }
    fn read_ids(&mut self) -> Pending<'_, Vec<Picked>> {
        Box::pin(ready(Ok(Picked::all(&self.memory.ids(self.plans.ids())))))
    }
    fn write(&mut self, rows: Rows, values: &[f32]) -> Result<()> {
        let values = rows.padded(values);
        self.memory.write(rows.buffer)[..values.len()].copy_from_slice(&values);
        Ok(())
    }
    fn read_block(&mut self, block: u32) -> Pending<'_, Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.plans.block_bytes() as usize);
        for (buffer, part) in self.plans.block_parts(block) {
            let values = self.memory.read(buffer);
            bytes.extend_from_slice(&bytemuck::cast_slice(&values[..])[in_memory(part)]);
        }
        Box::pin(ready(Ok(bytes)))
    }
    fn write_block(&mut self, block: u32, mut bytes: &[u8]) -> Result<()> {
        for (buffer, part) in self.plans.block_parts(block) {
            let of_part = bytes.split_off(..(part.end - part.start) as usize).expect("bytes for every part");
            let mut values = self.memory.write(buffer);
            bytemuck::cast_slice_mut(&mut values[..])[in_memory(part)].copy_from_slice(of_part);
        }
        Ok(())
    }
}

fn in_memory(bytes: Range<u64>) -> Range<usize> {
    bytes.start as usize..bytes.end as usize
}

impl Measure for CpuBackend {
    fn compile_time(&self) -> Duration {
        Duration::ZERO
    }
    fn profile(&mut self, phase: Phase, step: &Step) -> Result<Vec<Duration>> {
        let count = self.plans.of(phase).passes.len();
        let timed = |pass| {
            let start = Instant::now();
            self.submit_passes(phase, pass..pass + 1, step)?;
            Ok(start.elapsed())
        };
        (0..count).map(timed).collect()
    }
}
