//! An open GPU, through wgpu: error reporting, buffers, bind groups and pipelines.

mod executor;
mod pipeline_cache;
mod profile;
mod ready;
mod upload;

pub use executor::GpuBackend;

use super::{
    DeviceInfo,
    adapter::{backend_name, driver},
};
use crate::{
    capabilities::{CHUNK, Capabilities, LARGE_TILES, LONG_CHUNK, Layout, Matrices, SPLIT},
    error::{Error, Kind, Remedy, Result},
    kv_format::KvFormat,
    shader::Program,
};
use pipeline_cache::PipelineCache;
use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    task::{Poll, Waker},
};

/// Options for opening a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuOptions {
    /// Keep wgpu's bounds checks in shaders and the zeroing of workgroup memory: slower, for finding faults.
    pub checked: bool,
    /// Request WebGPU's default limits and no features, whatever the adapter supports.
    pub webgpu_defaults: bool,
    /// Keep compiled programs in the user's cache folder, so that the next run starts sooner.
    pub keep_pipelines: bool,
    /// Use cooperative matrices even if the device is made of software, which computes faster without them.
    pub software_matrices: bool,
}

/// What cooperative matrices need.
const MATRICES: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SUBGROUP);
/// The fewest rows of a weight matrix for which large tiles fill a card: with 512 rows of x, 256 of them.
const LARGE_FROM: u32 = 8192;

/// The size of cooperative matrices that an adapter multiplies in f16 with sums in f32, and that WGSL has.
fn matrix_size(adapter: &wgpu::Adapter, options: GpuOptions) -> Option<u32> {
    let info = adapter.get_info();
    if info.device_type == wgpu::DeviceType::Cpu {
        // Mesa's software device lists matrices whatever its subgroups' size, but with four threads in one it
        // does not open for them, and with sixteen it crashes.
        if !options.software_matrices || info.subgroup_max_size != 8 {
            return None;
        }
    }
    let all = adapter.cooperative_matrix_properties();
    let has = |size: &u32| {
        all.iter().any(|p| {
            [p.m_size, p.n_size, p.k_size] == [*size; 3]
                && p.ab_type == wgpu::CooperativeScalarType::F16
                && p.cr_type == wgpu::CooperativeScalarType::F32
        })
    };
    [16, 8].into_iter().find(has)
}

/// Whether a thread can hold four rows of a matrix, their sums and what it reads of several rows of
/// activations without a loss: what the compilers for AMD and NVIDIA make of matmul/vector.wgsl leaves room
/// for other threads; those for Intel and Apple run out of registers. Nobody else's are known.
fn has_many_registers(info: &wgpu::AdapterInfo) -> bool {
    const AMD: u32 = 0x1002;
    const NVIDIA: u32 = 0x10de;
    [AMD, NVIDIA].contains(&info.vendor)
}

/// An open GPU.
pub struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub info: DeviceInfo,
    pub driver: String,
    /// What it can do by default.
    pub can: Capabilities,
    /// The cooperative matrices that it has.
    pub matrices: Option<Matrices>,
    /// Those of them that have been found to be right.
    pub checked_matrices: OnceLock<Option<Matrices>>,
    options: GpuOptions,
    /// Whether a browser reads the programs, rather than naga.
    is_browser: bool,
    pipeline_cache: Option<PipelineCache>,
    /// The number of buffers, bind groups and pipelines made so far. None may be made while tokens are
    /// generated.
    made: AtomicU32,
    /// The first failure. wgpu reports failures through callbacks.
    failure: Arc<Mutex<Option<(Kind, String)>>>,
}

impl Gpu {
    pub async fn open(adapter: &wgpu::Adapter, options: GpuOptions) -> Result<Self> {
        let info = adapter.get_info();
        let (most, mut limits) = (adapter.limits(), wgpu::Limits::defaults());
        let mut features = wgpu::Features::empty();
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if !options.webgpu_defaults {
            // No binding may exceed 2^31 − 1 bytes; this is the largest multiple of 256, the alignment of
            // bindings, below that.
            limits.max_storage_buffer_binding_size =
                most.max_storage_buffer_binding_size.min((1 << 31) - 256);
            limits.max_buffer_size = most.max_buffer_size;
            let useful =
                wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::PIPELINE_CACHE;
            features = adapter.features() & useful;
            if adapter.features().contains(MATRICES) && matrix_size(adapter, options).is_some() {
                features |= MATRICES;
                // SAFETY: what an experimental feature does wrong may be undefined behaviour. Cooperative
                // matrices are loaded from and stored to workgroup memory only, at places that the program's
                // constants bound, and are used for a model only after they have been checked.
                experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
                limits.max_compute_workgroup_storage_size = most.max_compute_workgroup_storage_size;
            }
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wgpt"),
            required_features: features,
            required_limits: limits,
            experimental_features,
            // Small buffers share small blocks of memory. Large buffers have their own blocks in any case.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(|e| {
            let message = format!("{} could not be opened: {e}", info.name);
            // wgpu reports a lack of memory only in the text of the error.
            let is_memory = e.to_string().to_lowercase().contains("memory");
            let error = if is_memory { Error::memory(message) } else { Error::device(message) };
            error.with_remedy(Remedy::UseCpu).because(e)
        })?;
        let gpu = Self::new(adapter, device, queue, options);
        let record = {
            let failure = gpu.failure.clone();
            move |kind, message: String| {
                failure.lock().expect("no panic while it is held").get_or_insert((kind, message));
            }
        };
        gpu.device.on_uncaptured_error({
            let record = record.clone();
            Arc::new(move |error: wgpu::Error| match error {
                wgpu::Error::OutOfMemory { .. } => record(Kind::Memory, "it is out of memory".to_owned()),
                other => record(Kind::Run, other.to_string().lines().collect::<Vec<_>>().join(" ")),
            })
        });
        gpu.device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                record(Kind::Run, format!("the device was lost: {message}"));
            }
        });
        Ok(gpu)
    }

    /// Wraps an open device. `options` must be those that it was opened with.
    pub fn new(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: GpuOptions,
    ) -> Self {
        let info = adapter.get_info();
        let limits = device.limits();
        let max_binding = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        // No binding may exceed 2^31 − 1 bytes; see `open`.
        let max_binding = max_binding.min((1 << 31) - 256);
        let size = matrix_size(adapter, options).filter(|_| device.features().contains(MATRICES));
        let matrices = size.map(|size| {
            let is_roomy = limits.max_compute_workgroup_storage_size >= LARGE_TILES;
            Matrices {
                size,
                max_subgroup: info.subgroup_max_size,
                large_from: if is_roomy && size == 16 { LARGE_FROM } else { u32::MAX },
            }
        });
        let is_fast = info.device_type == wgpu::DeviceType::DiscreteGpu && !options.webgpu_defaults;
        let can = Capabilities {
            subgroups: device.features().contains(wgpu::Features::SUBGROUP),
            max_binding,
            max_groups: limits.max_compute_workgroups_per_dimension,
            split: SPLIT,
            lines: if has_many_registers(&info) { 4 } else { 2 },
            chunk: if is_fast { LONG_CHUNK } else { CHUNK },
            matrices: None,
            layout: Layout::gpu(max_binding),
            kv_format: KvFormat::F32,
        };
        let keeps = options.keep_pipelines;
        let pipeline_cache = keeps.then(|| PipelineCache::open(&device, &info)).flatten();
        let driver = driver(&info);
        let is_browser = info.backend == wgpu::Backend::BrowserWebGpu;
        let info = DeviceInfo { backend: backend_name(info.backend), name: info.name };
        Self {
            device,
            queue,
            info,
            driver,
            can,
            matrices,
            checked_matrices: OnceLock::new(),
            options,
            is_browser,
            pipeline_cache,
            made: AtomicU32::new(0),
            failure: Arc::default(),
        }
    }

    /// An error, if anything has failed since the device was opened.
    pub fn check(&self) -> Result<()> {
        match &*self.failure.lock().expect("no panic while it is held") {
            None => Ok(()),
            Some((Kind::Memory, what)) => {
                Err(Error::memory(format!("{}: {what}", self.info.name)).with_remedy(Remedy::LessMemory))
            }
            Some((_, what)) => {
                Err(Error::run(format!("{} failed: {what}", self.info.name)).with_remedy(Remedy::UseCpu))
            }
        }
    }

    /// Forgets a failure. Returns whether there was one.
    pub fn forget_failure(&self) -> bool {
        self.failure.lock().expect("no panic while it is held").take().is_some()
    }

    /// The recorded failure of the device if there is one, else an error about the call `what` that failed.
    pub fn failed(&self, what: &str, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.check().err().unwrap_or_else(|| Error::run(format!("{}: {what}", self.info.name)).because(cause))
    }

    /// Waits for a submission, or for all submissions.
    pub fn wait(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let wait = wgpu::PollType::Wait { submission_index, timeout: None };
        self.device.poll(wait).map_err(|e| self.failed("waiting for it failed", e))?;
        self.check()
    }

    pub(super) fn buffer(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let label = Some(label);
        self.made.fetch_add(1, Ordering::Relaxed);
        self.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
    }

    /// A buffer through which results are read back, of `bytes` bytes, a multiple of 4.
    pub(super) fn readback(&self, bytes: u64) -> wgpu::Buffer {
        self.buffer("readback", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)
    }

    /// The first bytes of a buffer that a submission writes, once that is done. The buffer is unmapped again.
    pub(super) async fn mapped(
        &self,
        buffer: &wgpu::Buffer,
        bytes: u64,
        mapping: Mapping,
    ) -> Result<Vec<u8>> {
        // A browser's events see to it; elsewhere nothing happens unless somebody waits.
        #[cfg(not(target_arch = "wasm32"))]
        self.wait(Some(mapping.submission.clone()))?;
        mapping.done().await.map_err(|e| self.failed("a result could not be read back", e))?;
        let copy = buffer
            .get_mapped_range(0..bytes)
            .map(|view| view.to_vec())
            .map_err(|e| self.failed("a result could not be read back", e));
        buffer.unmap();
        copy
    }

    /// The layout of a bind group of storage buffers. `writes` says for each whether the shader writes it.
    pub(super) fn layout(&self, writes: &[bool], dynamic: bool) -> wgpu::BindGroupLayout {
        let entry = |(binding, writes): (usize, &bool)| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: !writes },
                has_dynamic_offset: dynamic,
                min_binding_size: None,
            },
            count: None,
        };
        self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &writes.iter().enumerate().map(entry).collect::<Vec<_>>(),
        })
    }

    /// A bind group of the buffers, in order.
    pub(super) fn bind_group<'a>(
        &self,
        label: &str,
        layout: &wgpu::BindGroupLayout,
        buffers: impl Iterator<Item = wgpu::BufferBinding<'a>>,
    ) -> wgpu::BindGroup {
        self.made.fetch_add(1, Ordering::Relaxed);
        let entry = |(binding, buffer)| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(buffer),
        };
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(label),
            layout,
            entries: &(0..).zip(buffers).map(entry).collect::<Vec<_>>(),
        })
    }

    pub(super) fn pipeline(
        &self,
        program: &Program,
        layouts: &[&wgpu::BindGroupLayout],
    ) -> wgpu::ComputePipeline {
        self.made.fetch_add(1, Ordering::Relaxed);
        let prelude = if self.is_browser { program.browser_prelude() } else { "" };
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(program.name),
            source: wgpu::ShaderSource::Wgsl(format!("{prelude}{}", program.wgsl()).into()),
        };
        let module = if self.options.checked {
            self.device.create_shader_module(descriptor)
        } else {
            // SAFETY: without bounds checks, a program must not access memory beyond its buffers. The sizes
            // in the plan ensure that, and the tests also run every program with the checks. Every loop in
            // the shaders ends.
            unsafe {
                self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
            }
        };
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &layouts.iter().map(|layout| Some(*layout)).collect::<Vec<_>>(),
            immediate_size: 0,
        });
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(program.name),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &program.constants,
                // Every program writes workgroup memory before it reads it.
                zero_initialize_workgroup_memory: self.options.checked,
            },
            cache: self.pipeline_cache.as_ref().map(|kept| &kept.cache),
        })
    }
}

/// A buffer's mapping for the host, asked for and on its way.
pub(super) struct Mapping {
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "a browser's events see to it"))]
    submission: wgpu::SubmissionIndex,
    state: Arc<Mutex<MappingState>>,
}

#[derive(Default)]
struct MappingState {
    outcome: Option<Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

impl Mapping {
    /// Asks for the first bytes of a buffer that a submission writes.
    pub fn of(buffer: &wgpu::Buffer, bytes: u64, submission: wgpu::SubmissionIndex) -> Self {
        let state = Arc::<Mutex<MappingState>>::default();
        let told = state.clone();
        buffer.map_async(wgpu::MapMode::Read, 0..bytes, move |outcome| {
            let mut state = told.lock().expect("no panic while it is held");
            state.outcome = Some(outcome);
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        });
        Self { submission, state }
    }

    async fn done(&self) -> Result<(), wgpu::BufferAsyncError> {
        poll_fn(|context| {
            let mut state = self.state.lock().expect("no panic while it is held");
            match state.outcome.take() {
                Some(outcome) => Poll::Ready(outcome),
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}
