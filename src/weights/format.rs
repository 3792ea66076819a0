//! Storage formats: how a row of a weight matrix is packed, and what it means.
//!
//! Each has a file in shaders/weights/ that decodes it on the GPU; `unpack` is the definition.

use half::{bf16, f16};

/// How a matrix's values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
}

impl Format {
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::BF16];

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }

    /// The file in shaders/weights/ that decodes eight values at a time.
    pub fn shader(self) -> &'static str {
        match self {
            Self::F32 => include_str!("../../shaders/weights/f32.wgsl"),
            Self::F16 => include_str!("../../shaders/weights/f16.wgsl"),
            Self::BF16 => include_str!("../../shaders/weights/bf16.wgsl"),
        }
    }

    /// Bytes of one value.
    pub fn value_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// Bytes of a row of so many values.
    pub fn row_bytes(self, columns: usize) -> usize {
        columns * self.value_bytes()
    }

    /// The values that `packed` begins with, as many as `values` has room for.
    pub fn unpack(self, packed: &[u8], values: &mut [f32]) {
        match self {
            Self::F32 => {
                for (v, b) in values.iter_mut().zip(packed.as_chunks::<4>().0) {
                    *v = f32::from_le_bytes(*b);
                }
            }
            Self::F16 => {
                for (v, b) in values.iter_mut().zip(packed.as_chunks::<2>().0) {
                    *v = f16::from_le_bytes(*b).to_f32();
                }
            }
            Self::BF16 => {
                for (v, b) in values.iter_mut().zip(packed.as_chunks::<2>().0) {
                    *v = bf16::from_le_bytes(*b).to_f32();
                }
            }
        }
    }

    /// The nearest packed form of `values`.
    pub fn pack(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Self::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        }
    }
}
