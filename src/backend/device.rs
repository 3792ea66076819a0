//! Open devices: the CPU, or a GPU through wgpu.

use super::{
    Bandwidth, CpuBackend, DeviceChoice, DeviceInfo, Gpu, GpuBackend, GpuOptions, Measure,
    adapter::{cpu_name, default_threads, enumerate, is_usable, list, pick},
    bandwidth, native,
};
use crate::{
    capabilities::{Capabilities, LONG_CHUNK, Matrices},
    error::{Error, Remedy, Result},
    kv_format::KvFormat,
    plan::Plans,
    simd::{Math, Simd},
    verify::matrices_are_right,
};
use std::sync::Arc;

/// An open device, and the reason for choosing it. Clones share the device.
#[derive(Clone)]
pub struct Device {
    opened: Opened,
    pub reason: String,
}

#[derive(Clone)]
enum Opened {
    Cpu { threads: usize, math: Math, can: Capabilities },
    Gpu { gpu: Arc<Gpu>, can: Capabilities },
}

impl From<Gpu> for Opened {
    fn from(gpu: Gpu) -> Self {
        Self::Gpu { can: gpu.can.clone(), gpu: Arc::new(gpu) }
    }
}

impl Device {
    /// Opens the device that is asked for. `threads` are for the CPU; `None`: one per physical core.
    pub fn open(
        choice: &DeviceChoice,
        require_gpu: bool,
        threads: Option<usize>,
        options: GpuOptions,
    ) -> Result<Self> {
        // If the CPU is asked for, do not load any GPU driver.
        let found = if *choice == DeviceChoice::Cpu { Vec::new() } else { enumerate(choice) };
        let (index, reason) = pick(choice, &list(&found), require_gpu)?;
        let opened = match found.get(index) {
            None => {
                let threads = threads.unwrap_or_else(default_threads);
                Opened::Cpu { threads, math: Math::F32, can: Capabilities::cpu() }
            }
            Some(adapter) if is_usable(adapter) => native::open(adapter, options)?.into(),
            Some(adapter) => {
                return Err(Error::device(format!(
                    "{} lacks compute shaders or WebGPU's default limits",
                    adapter.get_info().name
                ))
                .with_remedy(Remedy::UseCpu));
            }
        };
        Ok(Self { opened, reason })
    }

    /// The best GPU, or the CPU if there is no GPU.
    pub fn best() -> Result<Self> {
        let options = GpuOptions { keep_pipelines: true, ..GpuOptions::default() };
        Self::open(&DeviceChoice::Auto, false, None, options)
    }

    /// Uses a device and a queue that an application has opened from this adapter, and may go on using.
    /// Features and limits are used as far as the application requested them, such as subgroups and larger
    /// bindings. Errors of wgpu go to the handler that the application has set by `on_uncaptured_error`.
    ///
    /// # Errors
    /// Of the kind Device if it was opened with less than WebGPU's default limits.
    pub fn from_wgpu(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        let info = adapter.get_info();
        if !wgpu::Limits::defaults().check_limits(&device.limits()) {
            return Err(Error::device(format!(
                "the application's device on {} has less than WebGPU's default limits: ask for these at \
                 least",
                info.name
            )));
        }
        let gpu = Gpu::new(adapter, device, queue, GpuOptions::default());
        Ok(Self { opened: gpu.into(), reason: "the application's own".to_owned() })
    }

    pub fn info(&self) -> DeviceInfo {
        match &self.opened {
            Opened::Cpu { threads, .. } => DeviceInfo { backend: "cpu", name: cpu_name(*threads) },
            Opened::Gpu { gpu, .. } => gpu.info.clone(),
        }
    }

    pub fn capabilities(&self) -> Capabilities {
        match &self.opened {
            Opened::Cpu { can, .. } | Opened::Gpu { can, .. } => can.clone(),
        }
    }

    /// Measures the bandwidth of the device's memory.
    pub fn bandwidth(&self) -> Result<Bandwidth> {
        match &self.opened {
            Opened::Cpu { threads, .. } => Ok(bandwidth::of_cpu(*threads)),
            Opened::Gpu { gpu, .. } => bandwidth::of_gpu(gpu),
        }
    }

    /// Sets how exactly products are computed; f32 is the default. A GPU that has cooperative matrices is
    /// found to compute them rightly before [`Math::Fast`] uses them.
    pub fn with_math(mut self, wanted: Math) -> Self {
        match &mut self.opened {
            Opened::Cpu { math, .. } => *math = wanted,
            Opened::Gpu { gpu, can } => {
                can.matrices = if wanted == Math::Fast { checked_matrices(gpu) } else { None };
                can.chunk = if can.matrices.is_some() { LONG_CHUNK } else { gpu.can.chunk };
            }
        }
        self.with_kv_format(if wanted == Math::Fast { KvFormat::F16 } else { KvFormat::F32 })
    }

    /// Sets how the cache stores keys and values; by default in f16 under [`Math::Fast`], else in f32.
    pub fn with_kv_format(mut self, format: KvFormat) -> Self {
        self.restrict(|can| can.kv_format = format);
        self
    }

    /// Whether [`Math::Fast`] differs from f32 on this device.
    pub fn has_fast_math(&self) -> bool {
        match &self.opened {
            Opened::Cpu { .. } => Simd::detect().has_byte_products(),
            Opened::Gpu { gpu, .. } => checked_matrices(gpu).is_some(),
        }
    }

    /// Says which cooperative matrices [`Math::Fast`] uses, or that they are not to be trusted. `None` where
    /// there are none.
    pub fn matrices(&self) -> Option<String> {
        let Opened::Gpu { gpu, .. } = &self.opened else { return None };
        gpu.matrices?;
        Some(match checked_matrices(gpu) {
            Some(Matrices { size, .. }) => format!("cooperative matrices of {size}×{size} are used"),
            None => "its cooperative matrices compute wrongly and are not used".to_owned(),
        })
    }

    /// The driver's name and version, as far as they are known. Empty for the CPU.
    pub fn driver(&self) -> String {
        match &self.opened {
            Opened::Cpu { .. } => String::new(),
            Opened::Gpu { gpu, .. } => gpu.driver.clone(),
        }
    }

    /// Everything about the device and its settings that the bits of results can follow from.
    pub fn computes_as(&self) -> String {
        match &self.opened {
            Opened::Cpu { math, can, .. } => format!("{:?} {math:?} {can:?}", Simd::detect()),
            Opened::Gpu { gpu, can } => format!("{:?} {} {can:?}", gpu.info, gpu.driver),
        }
    }

    /// Changes what the device is taken to be capable of, or its layout of matrices. Tests use this to reach
    /// code that only other devices would run.
    pub fn restrict(&mut self, change: impl FnOnce(&mut Capabilities)) {
        change(match &mut self.opened {
            Opened::Cpu { can, .. } | Opened::Gpu { can, .. } => can,
        });
    }

    /// Loads a model: uploads the weights and compiles the pipelines. `progress` is called with the bytes of
    /// each part of the weights that is loaded.
    pub fn prepare(self, plans: Plans, progress: &dyn Fn(u64)) -> Result<Box<dyn Measure>> {
        Ok(match self.opened {
            Opened::Cpu { threads, math, .. } => {
                Box::new(CpuBackend::prepare(plans, threads, math, progress)?)
            }
            Opened::Gpu { gpu, can } => Box::new(GpuBackend::prepare(gpu, &can, plans, progress)?),
        })
    }
}

/// The cooperative matrices of a GPU if it computes products with them as they are defined.
fn checked_matrices(gpu: &Arc<Gpu>) -> Option<Matrices> {
    let are_right = |matrices: &Matrices| {
        let prepare = |can: &Capabilities, plans| GpuBackend::prepare(gpu.clone(), can, plans, &|_| ());
        let is_right = matrices_are_right(&gpu.can, *matrices, prepare);
        // Where they cannot even be used, nothing else has failed.
        let has_failed = gpu.forget_failure();
        is_right.unwrap_or(false) && !has_failed
    };
    *gpu.checked_matrices.get_or_init(|| gpu.matrices.filter(are_right))
}
