//! What a device can do, as far as plans and programs depend on it.

use crate::buffers::ALIGN;

/// As many positions as a workgroup may have threads: fewer would be more parts to merge.
pub const SPLIT: u32 = 256;

/// What a device can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Subgroup operations in compute shaders.
    pub subgroups: bool,
    /// The most bytes of one binding.
    pub max_binding: u64,
    /// The most workgroups along one side of a grid.
    pub max_groups: u32,
    /// Positions that a workgroup of decode's attention looks at: a power of two.
    pub split: u32,
    /// How matrices are laid out.
    pub layout: Layout,
}

impl Capabilities {
    /// The least that any WebGPU device can do.
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
    /// The CPU: no limits, tensors stay where they are mapped.
    pub fn cpu() -> Self {
        Self { max_binding: u64::MAX, layout: Layout::CPU, ..Self::webgpu() }
    }
}

/// How a backend wants matrices laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whether tensors that make up a matrix share a buffer if they have the same format.
    pub join: bool,
    /// Rows are padded to a multiple of this many values.
    pub align: u32,
    /// The most bytes in a part of a matrix: what one binding can hold.
    pub max_bytes: u64,
}

impl Layout {
    /// Tensors stay where they are mapped: no joining, no padding.
    pub const CPU: Self = Self { join: false, align: 1, max_bytes: u64::MAX };

    pub fn gpu(max_bytes: u64) -> Self {
        Self { join: true, align: ALIGN, max_bytes }
    }
}
