//! The edge to programs that block: where the library waits for what is asynchronous inside it.

use super::{Gpu, GpuOptions};
use crate::error::Result;

/// Waits for a result. On these systems a [`super::Pending`] waits for the device when it is polled, so that
/// it is ready at once.
pub fn wait<T>(pending: impl Future<Output = T>) -> T {
    pollster::block_on(pending)
}

/// Every adapter of some APIs.
pub(super) fn adapters_of(instance: &wgpu::Instance, backends: wgpu::Backends) -> Vec<wgpu::Adapter> {
    wait(instance.enumerate_adapters(backends))
}

/// Opens an adapter's device.
pub(super) fn open(adapter: &wgpu::Adapter, options: GpuOptions) -> Result<Gpu> {
    wait(Gpu::open(adapter, options))
}
