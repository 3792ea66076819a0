//! Tensors of random bytes for the tests' GGUF files.

use std::sync::Arc;
use wgpt::weights::{Contents, Format, Made, Values, Writer};

/// Where in a block f16 numbers lie.
fn halves(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q2_K => &[80, 82],
        Format::Q3_K => &[108],
        Format::Q6_K => &[208],
        Format::MXFP4 => &[],
        _ => &[0],
    }
}

struct Rows {
    row_bytes: usize,
    bytes: Vec<u8>,
}

impl Contents for Rows {
    fn rows(&self) -> usize {
        self.bytes.len() / self.row_bytes
    }
    fn row_bytes(&self) -> usize {
        self.row_bytes
    }
    fn fill(&self, first: usize, out: &mut [u8]) {
        out.copy_from_slice(&self.bytes[first * self.row_bytes..][..out.len()]);
    }
}

/// The same bytes every time.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        Self(1)
    }
    pub fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 56) as u8
    }

    /// A norm's weights, near one.
    pub fn vector(&mut self, len: usize) -> Made {
        let values = (0..len).map(|_| 1.0 + f32::from(self.byte()) / 1000.0).collect();
        Made { shape: vec![len], format: Format::F32, contents: Arc::new(Values(values)) }
    }

    /// A matrix of random blocks whose scales are small.
    pub fn matrix(&mut self, format: Format, rows: usize, columns: usize) -> Made {
        let row_bytes = format.row_bytes(columns);
        let mut bytes: Vec<u8> = (0..rows * row_bytes).map(|_| self.byte()).collect();
        for block in bytes.chunks_mut(format.block_bytes()) {
            for half in halves(format) {
                // ± 2^-11 or so, and less in blocks of 256, which have scales beside it. Plain ones: ± 2^-4 or so.
                let exponent = match format.block_values() {
                    256 => 0x00,
                    32 => 0x10,
                    _ => 0x2c,
                };
                let (low, sign) = (self.byte(), self.byte() & 0x80);
                block[*half..half + 2].copy_from_slice(&[low, exponent | sign]);
            }
            if format == Format::MXFP4 {
                block[0] = 119;
            }
        }
        Made { shape: vec![rows, columns], format, contents: Arc::new(Rows { row_bytes, bytes }) }
    }
}

/// A file's bytes.
pub fn bytes(file: &Writer) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.write(&mut bytes, &|_, _| true).expect("writing to memory");
    bytes
}
