//! For programs that may block: waits for the results of asynchronous functions.

use super::{Gpu, GpuOptions};
use crate::error::Result;

/// Waits for a result. On native systems a [`super::Pending`] waits for the device when it is polled, so the
/// first poll returns the result.
pub fn wait<T>(pending: impl Future<Output = T>) -> T {
    pollster::block_on(pending)
}

/// All adapters of some APIs.
pub(super) fn adapters_of(instance: &wgpu::Instance, backends: wgpu::Backends) -> Vec<wgpu::Adapter> {
    wait(instance.enumerate_adapters(backends))
}

/// Opens an adapter's device.
pub(super) fn open(adapter: &wgpu::Adapter, options: GpuOptions) -> Result<Gpu> {
    wait(Gpu::open(adapter, options))
}
