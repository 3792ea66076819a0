//! What a device can do, as far as plans and programs depend on it.

use crate::buffers::ALIGN;

/// The positions of a split: as many as a workgroup can have threads. Smaller splits would be more parts to
/// merge.
pub const SPLIT: u32 = 256;

/// What a device can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether compute shaders can use subgroup operations.
    pub subgroups: bool,
    /// The largest size of a binding in bytes.
    pub max_binding: u64,
    /// The most workgroups along one dimension of a dispatch.
    pub max_groups: u32,
    /// The positions that one workgroup of attention handles in decode: a power of two.
    pub split: u32,
    /// How matrices are laid out.
    pub layout: Layout,
}

impl Capabilities {
    /// What every WebGPU device can do.
    pub fn webgpu() -> Self {
        let max_binding = 128 << 20;
        Self {
            subgroups: false,
            max_binding,
            max_groups: 65535,
            split: SPLIT,
            layout: Layout::gpu(max_binding),
        }
    }
    /// What the CPU can do: there are no limits, and tensors stay where they are mapped.
    pub fn cpu() -> Self {
        Self { max_binding: u64::MAX, layout: Layout::CPU, ..Self::webgpu() }
    }
}

/// The layout of matrices that a backend needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whether the tensors that form a matrix share a buffer if they have the same format.
    pub join: bool,
    /// Rows are padded to a multiple of this many values.
    pub align: u32,
    /// Whether block formats are laid out in planes (src/weights/planes.rs).
    pub planes: bool,
    /// The largest size of one part of a matrix in bytes, so that it fits one binding.
    pub max_bytes: u64,
}

impl Layout {
    /// Tensors stay where they are mapped: no joining, no padding.
    pub const CPU: Self = Self { join: false, align: 1, planes: false, max_bytes: u64::MAX };

    pub fn gpu(max_bytes: u64) -> Self {
        Self { join: true, align: ALIGN, planes: true, max_bytes }
    }
}
