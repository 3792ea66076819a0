//! Storage formats: how a row of a weight matrix is packed, and what it means.
//!
//! Each has a file in shaders/weights/ that decodes it on the GPU; unpack.rs defines what it means, pack.rs makes it.

use super::{pack, unpack};
use crate::error::{Error, Result};
use std::str::FromStr;

/// How a matrix's values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)] // ggml's own names
pub enum Format {
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    MXFP4,
}

/// What there is to know of a format.
struct Layout {
    name: &'static str,
    /// Values of a block, and its bytes.
    values: usize,
    bytes: usize,
    /// From a block's bytes to its values, and back.
    unpack: fn(&[u8], &mut [f32]),
    pack: fn(&[f32], &mut [u8]),
    shader: &'static str,
}

/// A format's arm: its block, and its name in lower case, by which all that has to do with it is called.
macro_rules! layout {
    ($name:ident, $values:literal, $bytes:literal) => {
        Layout {
            name: stringify!($name),
            values: $values,
            bytes: $bytes,
            unpack: unpack::$name,
            pack: pack::$name,
            shader: include_str!(concat!("../../shaders/weights/", stringify!($name), ".wgsl")),
        }
    };
}

impl Format {
    pub const ALL: [Self; 15] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ4_NL,
        Self::MXFP4,
    ];

    const fn layout(self) -> Layout {
        match self {
            Self::F32 => layout!(f32, 1, 4),
            Self::F16 => layout!(f16, 1, 2),
            Self::BF16 => layout!(bf16, 1, 2),
            Self::Q8_0 => layout!(q8_0, 32, 34),
            Self::Q4_0 => layout!(q4_0, 32, 18),
            Self::Q4_1 => layout!(q4_1, 32, 20),
            Self::Q5_0 => layout!(q5_0, 32, 22),
            Self::Q5_1 => layout!(q5_1, 32, 24),
            Self::Q2_K => layout!(q2_k, 256, 84),
            Self::Q3_K => layout!(q3_k, 256, 110),
            Self::Q4_K => layout!(q4_k, 256, 144),
            Self::Q5_K => layout!(q5_k, 256, 176),
            Self::Q6_K => layout!(q6_k, 256, 210),
            Self::IQ4_NL => layout!(iq4_nl, 32, 18),
            Self::MXFP4 => layout!(mxfp4, 32, 17),
        }
    }

    pub fn name(self) -> &'static str {
        self.layout().name
    }

    /// The files in shaders/weights/ that decode eight values at a time, by the interface that each implements.
    pub fn shader(self) -> Vec<(&'static str, &'static str)> {
        let shared = if self.is_blocks() {
            &[
                ("bytes", include_str!("../../shaders/weights/bytes.wgsl")),
                ("k_pairs", include_str!("../../shaders/weights/k_pairs.wgsl")),
            ][..]
        } else {
            &[]
        };
        [&[("weights", self.layout().shader)], shared].concat()
    }

    /// What the shader must be told of rows so many bytes apart.
    pub fn constants(self, row_bytes: usize) -> Option<(&'static str, f64)> {
        self.is_blocks().then_some(("ROW_BYTES", row_bytes as f64))
    }

    /// Values of a block: a row is a whole number of blocks.
    pub fn block_values(self) -> usize {
        self.layout().values
    }
    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.layout().bytes
    }
    /// Whether values are packed in blocks, rather than each by itself.
    pub fn is_blocks(self) -> bool {
        self.block_values() > 1
    }
    /// What a mapped row must be aligned to.
    pub fn alignment(self) -> usize {
        if self.is_blocks() { 1 } else { self.block_bytes() }
    }

    /// Bytes of a row of so many values.
    pub fn row_bytes(self, columns: usize) -> usize {
        columns.div_ceil(self.block_values()) * self.block_bytes()
    }

    /// The values that `packed` begins with, as many as `values` has room for.
    #[inline(always)]
    pub fn unpack(self, packed: &[u8], values: &mut [f32]) {
        let Layout { values: n, bytes, unpack, .. } = self.layout();
        if self.is_blocks() {
            packed
                .chunks_exact(bytes)
                .zip(values.chunks_mut(n))
                .for_each(|(block, values)| unpack(block, values));
        } else {
            unpack(packed, values);
        }
    }

    /// Packs `values`, a whole number of blocks, into the bytes that `packed` begins with.
    pub fn pack(self, values: &[f32], packed: &mut [u8]) {
        let Layout { values: n, bytes, pack, .. } = self.layout();
        if self.is_blocks() {
            values.chunks_exact(n).zip(packed.chunks_exact_mut(bytes)).for_each(|(v, block)| pack(v, block));
        } else {
            pack(values, packed);
        }
    }

    /// Bits that a value takes.
    pub fn bits(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_values() as f64
    }
}

impl FromStr for Format {
    type Err = Error;

    /// By its name in either case.
    fn from_str(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| Error::request(format!("there is no format {name}: there are {}", known())))
    }
}
