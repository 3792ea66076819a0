//! Storage formats: how a row of a weight matrix is packed.
//!
//! unpack.rs dequantises each format and so defines it, and pack.rs quantises to it. On a GPU, files in
//! shaders/weights/ read it, those of block formats in the layout that planes.rs gives them.

use super::{pack, planes, unpack};
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

/// The properties of a format.
struct Layout {
    name: &'static str,
    /// Values in a block.
    values: usize,
    /// Bytes of a block.
    bytes: usize,
    /// Dequantises a block; for formats without blocks, any number of values.
    unpack: fn(&[u8], &mut [f32]),
    /// Quantises a block; for formats without blocks, any number of values.
    pack: fn(&[f32], &mut [u8]),
}

/// What a program needs to read the rows of a format.
pub struct Shader {
    /// (interface, source)
    pub imports: Vec<(&'static str, &'static str)>,
    /// (override, value)
    pub constants: Vec<(&'static str, f64)>,
    /// The columns to whose multiples the lanes of a row extend.
    pub unit: u32,
}

/// The layout of a format: its lower-case name, which is also that of its functions; values in a block; bytes
/// of a block.
macro_rules! layout {
    ($name:ident, $values:literal, $bytes:literal) => {
        Layout {
            name: stringify!($name),
            values: $values,
            bytes: $bytes,
            unpack: unpack::$name,
            pack: pack::$name,
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

    /// What a program needs to read rows of `columns` values on a GPU: imports, (interface, source) of files
    /// in shaders/weights/, and their constants.
    pub fn shader(self, columns: u32) -> Shader {
        let values = match self {
            Self::F32 => include_str!("../../shaders/weights/f32.wgsl"),
            Self::F16 => include_str!("../../shaders/weights/f16.wgsl"),
            Self::BF16 => include_str!("../../shaders/weights/bf16.wgsl"),
            _ => {
                let (imports, constants) = (planes::imports(self), planes::constants(self, columns as usize));
                return Shader { imports, constants, unit: planes::UNIT as u32 };
            }
        };
        // 32 lanes take four groups of eight columns each.
        let unit = 32 * 4 * 8;
        Shader {
            imports: vec![("weights", include_str!("../../shaders/weights/values.wgsl")), ("values", values)],
            constants: vec![("LANES", f64::from(columns.div_ceil(unit) * 32))],
            unit,
        }
    }

    /// Values in a block: a row is a whole number of blocks.
    pub fn block_values(self) -> usize {
        self.layout().values
    }
    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.layout().bytes
    }
    /// Whether values are packed in blocks rather than individually.
    pub fn is_blocks(self) -> bool {
        self.block_values() > 1
    }
    /// The alignment, in bytes, that a mapped row must have.
    pub fn alignment(self) -> usize {
        if self.is_blocks() { 1 } else { self.block_bytes() }
    }

    /// Bytes of a row of `columns` values.
    pub fn row_bytes(self, columns: usize) -> usize {
        columns.div_ceil(self.block_values()) * self.block_bytes()
    }

    /// Dequantises the values at the start of `packed`, as many as `values` has room for.
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

    /// Quantises `values`, a whole number of blocks, into the start of `packed`.
    pub fn pack(self, values: &[f32], packed: &mut [u8]) {
        let Layout { values: n, bytes, pack, .. } = self.layout();
        if self.is_blocks() {
            values.chunks_exact(n).zip(packed.chunks_exact_mut(bytes)).for_each(|(v, block)| pack(v, block));
        } else {
            pack(values, packed);
        }
    }

    /// Bits per value, with its share of the block's scales.
    pub fn bits(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_values() as f64
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Parses a format's name, in upper or lower case.
    fn from_str(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| Error::request(format!("there is no format {name}: there are {}", known())))
    }
}
