//! The GPU executor. `prepare` makes all buffers, pipelines and bind groups; a step only encodes commands.

use super::{
    Gpu, Mapping,
    profile::profile,
    ready::{Ready, bind, compile},
    upload::Upload,
};
use crate::{
    backend::{Backend, Measure, Pending},
    buffers::{Buffer, Content, Rows},
    capabilities::Capabilities,
    error::Result,
    plan::{Plans, Ports},
    sampling::Picked,
    step::Step,
    workload::Phase,
};
use std::{
    collections::VecDeque,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

/// The most steps in flight: one runs on the device, one waits for it, and the host writes one.
const MAX_IN_FLIGHT: usize = 3;
/// Slots in the ring of steps: one more than steps in flight, for a step whose ids are not read.
const RING: u64 = MAX_IN_FLIGHT as u64 + 1;

/// A ring of slots that the host writes steps to. It is bound at group 0 with a dynamic offset.
struct StepRing {
    buffer: wgpu::Buffer,
    group: wgpu::BindGroup,
    slot_bytes: u64,
    next: u64,
}

/// A model on a GPU.
pub struct GpuBackend {
    gpu: Arc<Gpu>,
    max_groups: u32,
    plans: Plans,
    buffers: Vec<wgpu::Buffer>,
    /// By plan, then by pass.
    ready: Vec<Vec<Vec<Ready>>>,
    pipelines: Vec<wgpu::ComputePipeline>,
    steps: StepRing,
    /// The buffer through which results are read back.
    readback: wgpu::Buffer,
    in_flight: InFlight,
    submit_time: Duration,
    compile_time: Duration,
}

/// The sampled ids of the steps in flight. Each step copies them to a buffer of its own.
struct InFlight {
    free: Vec<wgpu::Buffer>,
    /// The oldest first.
    steps: VecDeque<(wgpu::Buffer, Mapping)>,
}

impl GpuBackend {
    /// Makes the model's buffers, uploads the weights and compiles the programs. `progress` is called with
    /// the bytes of each part of the weights that is uploaded.
    pub fn prepare(gpu: Arc<Gpu>, can: &Capabilities, plans: Plans, progress: &dyn Fn(u64)) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let make = |buffer: Buffer| {
            gpu.buffer(plans.buffers.label(buffer), plans.buffers.bytes(buffer, &plans.sizes), usage)
        };
        let buffers: Vec<_> = plans.buffers.all().map(make).collect();
        let steps = StepRing::new(&gpu, &plans);
        let bytes = |buffer| plans.buffers.bytes(buffer, &plans.sizes);
        let Ports { logits, encoded, ids, .. } = plans.ports;
        let largest = [logits, encoded].into_iter().flatten().map(|rows| bytes(rows.buffer)).max();
        let readback = gpu.readback(largest.unwrap_or(4));
        let free = match ids {
            Some(ids) => (0..MAX_IN_FLIGHT).map(|_| gpu.readback(bytes(ids))).collect(),
            None => Vec::new(),
        };
        let in_flight = InFlight { free, steps: VecDeque::new() };
        gpu.check()?;
        let (programs, ready) = bind(&gpu, can, &plans, &buffers);
        let (pipelines, compile_time) = std::thread::scope(|scope| {
            let compiling = scope.spawn(|| compile(&gpu, &programs, &steps.1));
            let mut upload = Upload::new(&gpu);
            for buffer in plans.buffers.all() {
                if let Content::Loaded(contents) = plans.buffers.content(buffer) {
                    upload.fill(&buffers[buffer.0 as usize], &**contents, progress)?;
                }
            }
            gpu.wait(None)?;
            let uploaded = Instant::now();
            let pipelines = compiling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok((pipelines, uploaded.elapsed()))
        })?;
        gpu.check()?;
        Ok(Self {
            gpu,
            max_groups: can.max_groups,
            plans,
            buffers,
            ready,
            pipelines,
            steps: steps.0,
            readback,
            in_flight,
            submit_time: Duration::ZERO,
            compile_time,
        })
    }

    /// The first bytes of a buffer after all work submitted so far.
    async fn read_bytes(&mut self, buffer: Buffer, bytes: u64) -> Result<Vec<u8>> {
        self.read_parts(vec![(buffer, 0..bytes)]).await
    }

    /// Bytes of buffers, one after the other, after all work submitted so far.
    async fn read_parts(&mut self, parts: Vec<(Buffer, Range<u64>)>) -> Result<Vec<u8>> {
        let bytes = parts.iter().map(|(_, part)| part.end - part.start).sum();
        if self.readback.size() < bytes {
            // Only some reads of activations and of the cache, such as those of the verification, are larger
            // than the logits.
            self.readback = self.gpu.readback(bytes);
        }
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let mut to = 0;
        for (buffer, part) in parts {
            let (from, bytes) = (&self.buffers[buffer.0 as usize], part.end - part.start);
            encoder.copy_buffer_to_buffer(from, part.start, &self.readback, to, bytes);
            to += bytes;
        }
        let submission = self.gpu.queue.submit([encoder.finish()]);
        let mapping = Mapping::of(&self.readback, bytes, submission);
        self.gpu.mapped(&self.readback, bytes, mapping).await
    }

    /// Writes a step to the ring and records some passes of a phase's plan for it.
    fn encode(&mut self, phase: Phase, passes: Range<usize>, step: &Step) -> wgpu::CommandEncoder {
        let load = step.load();
        let offset = self.steps.write(&self.gpu, step);
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_bind_group(0, &self.steps.group, &[offset]);
        for ready in self.ready[self.plans.number(phase)][passes].iter().flatten() {
            if let Some([x, y, z]) = ready.grid.workgroups(&load, self.max_groups) {
                pass.set_pipeline(&self.pipelines[ready.pipeline]);
                pass.set_bind_group(1, &ready.operands, &[]);
                pass.dispatch_workgroups(x, y, z);
            }
        }
        drop(pass);
        encoder
    }

    /// Records all passes of a phase's plan for a step, and then a copy of the sampled ids to `ids_to`.
    fn encode_all(&mut self, phase: Phase, step: &Step, ids_to: &wgpu::Buffer) -> wgpu::CommandBuffer {
        let all = 0..self.plans.of(phase).passes.len();
        let mut encoder = self.encode(phase, all, step);
        let ids = &self.buffers[self.plans.ids().0 as usize];
        encoder.copy_buffer_to_buffer(ids, 0, ids_to, 0, ids_to.size());
        encoder.finish()
    }
}

impl StepRing {
    fn new(gpu: &Gpu, plans: &Plans) -> (Self, wgpu::BindGroupLayout) {
        let sizes = &plans.sizes;
        let blocks = sizes.context.div_ceil(crate::buffers::BLOCK);
        let words = Step::max_words(sizes.max_rows(), sizes.outputs, sizes.slots(), blocks, sizes.adapters);
        let slot_bytes = (words * 4).next_multiple_of(256);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let buffer = gpu.buffer("steps", slot_bytes * RING, usage);
        let layout = gpu.layout(&[false], true);
        let size = std::num::NonZero::new(slot_bytes);
        let slot = wgpu::BufferBinding { buffer: &buffer, offset: 0, size };
        let group = gpu.bind_group("step", &layout, std::iter::once(slot));
        (Self { buffer, group, slot_bytes, next: 0 }, layout)
    }

    /// Writes a step into the next slot and returns the slot's offset in bytes.
    fn write(&mut self, gpu: &Gpu, step: &Step) -> u32 {
        let at = self.next * self.slot_bytes;
        self.next = (self.next + 1) % RING;
        gpu.queue.write_buffer(&self.buffer, at, bytemuck::cast_slice(&step.words()));
        at as u32
    }
}

impl Backend for GpuBackend {
    fn plans(&self) -> &Plans {
        &self.plans
    }
    fn max_in_flight(&self) -> usize {
        MAX_IN_FLIGHT
    }
    fn submit(&mut self, phase: Phase, step: &Step) -> Result<()> {
        let buffer = self.in_flight.free.pop().expect("no more steps in flight than there may be");
        let commands = self.encode_all(phase, step, &buffer);
        let start = Instant::now();
        let submission = self.gpu.queue.submit([commands]);
        self.submit_time = start.elapsed();
        let mapping = Mapping::of(&buffer, buffer.size(), submission);
        self.in_flight.steps.push_back((buffer, mapping));
        self.gpu.check()
    }
    fn picked(&mut self) -> Pending<'_, Vec<Picked>> {
        Box::pin(async {
            let (buffer, mapping) = self.in_flight.steps.pop_front().expect("a step in flight");
            let bytes = self.gpu.mapped(&buffer, buffer.size(), mapping).await;
            self.in_flight.free.push(buffer);
            Ok(Picked::all(&bytemuck::pod_collect_to_vec(&bytes?)))
        })
    }
    fn submit_passes(&mut self, phase: Phase, passes: Range<usize>, step: &Step) -> Result<()> {
        let encoder = self.encode(phase, passes, step);
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.check()
    }
    fn read(&mut self, rows: Rows, count: usize) -> Pending<'_, Vec<f32>> {
        Box::pin(async move {
            let row_bytes = rows.stride() as usize * 4;
            let bytes = self.read_bytes(rows.buffer, (count * row_bytes) as u64).await?;
            let width = rows.width as usize * 4;
            let values = |row: &[u8]| bytemuck::pod_collect_to_vec::<u8, f32>(&row[..width]);
            Ok(bytes.chunks(row_bytes).flat_map(values).collect())
        })
    }
    fn read_ids(&mut self) -> Pending<'_, Vec<Picked>> {
        Box::pin(async {
            let ids = self.plans.ids();
            let bytes = self.read_bytes(ids, self.plans.buffers.bytes(ids, &self.plans.sizes)).await?;
            Ok(Picked::all(&bytemuck::pod_collect_to_vec(&bytes)))
        })
    }
    fn write(&mut self, rows: Rows, values: &[f32]) -> Result<()> {
        let buffer = &self.buffers[rows.buffer.0 as usize];
        self.gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(&rows.padded(values)));
        self.gpu.check()
    }
    fn read_block(&mut self, block: u32) -> Pending<'_, Vec<u8>> {
        let parts = self.plans.block_parts(block);
        Box::pin(self.read_parts(parts))
    }
    fn write_block(&mut self, block: u32, mut bytes: &[u8]) -> Result<()> {
        for (buffer, part) in self.plans.block_parts(block) {
            let of_part = bytes.split_off(..(part.end - part.start) as usize).expect("bytes for every part");
            self.gpu.queue.write_buffer(&self.buffers[buffer.0 as usize], part.start, of_part);
        }
        self.gpu.check()
    }
}

impl Measure for GpuBackend {
    fn compile_time(&self) -> Duration {
        self.compile_time
    }
    fn profile(&mut self, phase: Phase, step: &Step) -> Result<Vec<Duration>> {
        let offset = self.steps.write(&self.gpu, step);
        profile(
            &self.gpu,
            (&self.ready[self.plans.number(phase)], &self.pipelines),
            (&step.load(), self.max_groups),
            (&self.steps.group, offset),
        )
    }
    fn encode_time(&mut self, phase: Phase, step: &Step) -> Duration {
        let buffer = self.in_flight.free.pop().expect("nothing is in flight");
        let start = Instant::now();
        let commands = self.encode_all(phase, step, &buffer);
        let time = start.elapsed();
        drop(commands);
        self.in_flight.free.push(buffer);
        time
    }
    fn submit_time(&self) -> Duration {
        self.submit_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{GpuOptions, wait};
    use crate::error::Kind;
    use crate::{buffers::Sizes, engine::plans, model::Model, step::Row};
    use std::sync::atomic::Ordering;

    /// The built-in model on the first GPU found, and a step of one token for it.
    fn prepared() -> Option<(GpuBackend, Step)> {
        let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let found = wait(instance.enumerate_adapters(backends));
        let Some(adapter) = found.first() else {
            eprintln!("skipped: no GPU, not even a software one");
            return None;
        };
        let gpu = wait(Gpu::open(adapter, GpuOptions::default())).expect("a device");
        let (model, _) = Model::built_in().expect("the built-in model");
        let sizes =
            Sizes { rows: [8, 8], outputs: 8, sequences: 1, guesses: 0, adapters: 0, context: 32, blocks: 1 };
        let can = gpu.can.clone();
        let plans = plans(&model, &can, sizes).expect("plans");
        let backend = GpuBackend::prepare(Arc::new(gpu), &can, plans, &|_| ()).expect("a device made ready");
        let step = Step {
            rows: vec![Row { token: 1, position: 0, sequence: 0 }],
            outputs: vec![0],
            tables: vec![vec![0]],
            ..Step::default()
        };
        Some((backend, step))
    }

    /// If the device is lost during the work, there is an error of one sentence and no panic.
    #[test]
    fn a_lost_device_is_an_error() {
        let Some((mut backend, step)) = prepared() else { return };
        backend.submit(Phase::Prefill, &step).expect("it is still there");
        wait(backend.picked()).expect("it is still there");
        backend.gpu.device.destroy();
        let error = backend
            .submit(Phase::Decode, &step)
            .and_then(|()| wait(backend.picked()))
            .expect_err("it is gone");
        assert_eq!(error.kind(), Kind::Run);
        assert!(!error.to_string().contains('\n'), "{error}");
    }

    /// Steps make no buffers, bind groups or pipelines.
    #[test]
    fn nothing_is_made_after_prepare() {
        let Some((mut backend, mut step)) = prepared() else { return };
        let made = |backend: &GpuBackend| backend.gpu.made.load(Ordering::Relaxed);
        let before = made(&backend);
        assert!(before > 30, "buffers, bind groups and pipelines of five layers: {before}");
        backend.submit(Phase::Prefill, &step).expect("a prompt");
        let mut in_flight = 1;
        for position in 1..20 {
            step.rows[0] = Row { token: crate::step::SAMPLED, position, sequence: 0 };
            if in_flight == backend.max_in_flight() {
                let picked = wait(backend.picked()).expect("ids");
                assert!(picked[0].id < 512, "{picked:?}");
                in_flight -= 1;
            }
            backend.submit(Phase::Decode, &step).expect("a token");
            in_flight += 1;
        }
        (0..in_flight).for_each(|_| drop(wait(backend.picked()).expect("ids")));
        let logits = backend.plans.logits();
        assert!(wait(backend.read(logits, 1)).expect("logits").iter().all(|l| l.is_finite()));
        assert_eq!(made(&backend), before);
    }
}
