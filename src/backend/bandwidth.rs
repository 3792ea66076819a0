//! Measures the bandwidth of a device's memory, the upper bound for tokens per second.

use super::Gpu;
use crate::{error::Result, shader::Program};
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// Memory bandwidth in GB/s (10^9 bytes per second).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Bandwidth {
    pub read_gb_s: f64,
    /// Bytes read plus bytes written.
    pub copy_gb_s: f64,
}

/// The size of both buffers together in bytes: several times larger than any cache.
const BYTES: u64 = 1 << 30;
const RUNS: usize = 5;

/// The bandwidth of the CPU's memory with `threads` threads: the best of several runs.
pub fn of_cpu(threads: usize) -> Bandwidth {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let words = BYTES as usize / 16;
    let from = vec![1u64; words];
    let mut to = vec![0u64; words];
    let part = words.div_ceil(threads * 8);
    let mut best = Bandwidth { read_gb_s: 0.0, copy_gb_s: 0.0 };
    pool.install(|| {
        for _ in 0..RUNS {
            let start = Instant::now();
            let sum = from
                .par_chunks(part)
                .map(|part| part.iter().fold(0, |sum: u64, word| sum ^ word))
                .sum::<u64>();
            std::hint::black_box(sum);
            let read = words as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9;
            let start = Instant::now();
            to.par_chunks_mut(part)
                .zip(from.par_chunks(part))
                .for_each(|(to, from)| to.copy_from_slice(from));
            std::hint::black_box(&to);
            let copy = words as f64 * 16.0 / start.elapsed().as_secs_f64() / 1e9;
            best.read_gb_s = best.read_gb_s.max(read);
            best.copy_gb_s = best.copy_gb_s.max(copy);
        }
    });
    best
}

/// A submission must take at least this long, so that noise of clock and driver is small against it.
const LONG: Duration = Duration::from_millis(40);

/// The bandwidth of a GPU's memory, measured with shaders/bandwidth.wgsl: the time of many runs in one
/// submission, less the time of a single run. Each time is the minimum of several tries, since disturbances
/// only add time.
pub fn of_gpu(gpu: &Gpu) -> Result<Bandwidth> {
    const BYTES_OF_A_GROUP: u64 = 256 * 16 * 16;
    let most = gpu.can.max_binding.min(u64::from(gpu.can.max_groups) * BYTES_OF_A_GROUP).min(BYTES / 2);
    let groups = most / BYTES_OF_A_GROUP;
    let bytes = groups * BYTES_OF_A_GROUP;
    let measure = |copy: bool| -> Result<f64> {
        let kernel = BandwidthKernel::new(gpu, bytes, copy)?;
        let time = |count| -> Result<Duration> {
            let start = Instant::now();
            kernel.run(gpu, groups as u32, count)?;
            Ok(start.elapsed())
        };
        let mut more = 8;
        time(1)?;
        while time(1 + more)? < LONG && more < 1 << 16 {
            more *= 2;
        }
        let (mut one, mut many) = (Duration::MAX, Duration::MAX);
        for _ in 0..RUNS {
            one = one.min(time(1)?);
            many = many.min(time(1 + more)?);
        }
        let moved = bytes as f64 * f64::from(more) * if copy { 2.0 } else { 1.0 };
        // Where the clock is too coarse to see a difference, the bandwidth is unknown: zero.
        let seconds = many.saturating_sub(one).as_secs_f64();
        Ok(if seconds > 0.0 { moved / seconds / 1e9 } else { 0.0 })
    };
    Ok(Bandwidth { read_gb_s: measure(false)?, copy_gb_s: measure(true)? })
}

/// The pipeline of the kernel, and the buffers it reads and writes.
struct BandwidthKernel {
    pipeline: wgpu::ComputePipeline,
    operands: wgpu::BindGroup,
}

impl BandwidthKernel {
    /// For buffers of `bytes` bytes each.
    fn new(gpu: &Gpu, bytes: u64, copy: bool) -> Result<Self> {
        let program = Program {
            name: "bandwidth",
            source: include_str!("../../shaders/bandwidth.wgsl"),
            imports: Vec::new(),
            constants: vec![("COPY", f64::from(u8::from(copy)))],
        };
        let buffers = ["from", "to"].map(|label| gpu.buffer(label, bytes, wgpu::BufferUsages::STORAGE));
        let layout = gpu.layout(&[false, true], false);
        let both = buffers.iter().map(wgpu::Buffer::as_entire_buffer_binding);
        let operands = gpu.bind_group(program.name, &layout, both);
        let pipeline = gpu.pipeline(&program, &[&layout]);
        gpu.check()?;
        Ok(Self { pipeline, operands })
    }

    /// Runs the kernel `count` times in a row, in one submission.
    fn run(&self, gpu: &Gpu, groups: u32, count: u32) -> Result<()> {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.operands, &[]);
            (0..count).for_each(|_| pass.dispatch_workgroups(groups, 1, 1));
        }
        gpu.queue.submit([encoder.finish()]);
        gpu.wait(None)
    }
}
