//! What a device can do, as far as plans and programs depend on it.

use crate::{buffers::ALIGN, kv_format::KvFormat};

/// The positions of a split: as many as a workgroup can have threads. Smaller splits would be more parts to
/// merge.
pub const SPLIT: u32 = 256;

/// The most prompt tokens in one prefill step, where arithmetic bounds it.
pub const CHUNK: u32 = 128;
/// Likewise where arithmetic is so fast that reading the weights bounds it: fewer steps read them less often.
pub const LONG_CHUNK: u32 = 512;

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
    /// The rows of a matrix that one workgroup takes in decode: 4, or 2 where a thread has few registers.
    pub lines: u32,
    /// The most prompt tokens in one prefill step if no other number is requested.
    pub chunk: u32,
    /// The cooperative matrices that products of many rows use. `None`: they are computed in f32.
    pub matrices: Option<Matrices>,
    /// How matrices are laid out.
    pub layout: Layout,
    /// How the cache stores keys and values.
    pub kv_format: KvFormat,
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
            lines: 2,
            chunk: CHUNK,
            matrices: None,
            layout: Layout::gpu(max_binding),
            kv_format: KvFormat::F32,
        }
    }
    /// What the CPU can do: there are no limits, and tensors stay where they are mapped.
    pub fn cpu() -> Self {
        Self { max_binding: u64::MAX, layout: Layout::CPU, ..Self::webgpu() }
    }
}

/// Cooperative matrices: square ones that a subgroup multiplies by one instruction, in f16 with sums in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrices {
    /// Rows and columns of each: 8 or 16.
    pub size: u32,
    /// The largest size of a subgroup.
    pub max_subgroup: u32,
    /// The fewest rows of a weight matrix for which its products use large tiles.
    pub large_from: u32,
}

/// Bytes of workgroup memory for large tiles of matrices: of each operand 128 by 40 values in f16, and
/// results.
pub const LARGE_TILES: u32 = 2 * 128 * 40 * 2 + 4 * 16 * 20 * 4;

impl Matrices {
    /// The same matrices in each size of tiles that is used, for all products, and the tiles' names.
    pub fn tiles(self) -> Vec<(&'static str, Self)> {
        let all = [("small tiles", u32::MAX), ("large tiles", 0)].into_iter();
        let count = if self.large_from < u32::MAX { 2 } else { 1 };
        all.take(count).map(|(name, large_from)| (name, Self { large_from, ..self })).collect()
    }

    /// The shader file that implements interface `matrices`.
    pub fn shader(&self) -> &'static str {
        match self.size {
            8 => include_str!("../shaders/matrices/eights.wgsl"),
            _ => include_str!("../shaders/matrices/sixteens.wgsl"),
        }
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
