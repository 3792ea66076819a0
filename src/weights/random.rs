//! Random weights, the same every time, so that verification and measurements need no download.

use super::{Bytes, Format, Tensor};
use rayon::prelude::*;

/// A generator of random 64-bit words (Steele et al. 2014, "SplitMix").
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
    /// A number from -1 to 1, uniformly distributed.
    pub fn value(&mut self) -> f32 {
        (self.word() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// The offsets of the f16 numbers in a block.
fn halves(format: Format) -> &'static [usize] {
    match format {
        Format::F32 | Format::BF16 | Format::MXFP4 => &[],
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q2_K => &[80, 82],
        Format::Q3_K => &[108],
        Format::Q6_K => &[208],
        Format::F16 | Format::Q8_0 | Format::Q4_0 | Format::Q5_0 | Format::IQ4_NL => &[0],
    }
}

/// Replaces the scales in a block of random bytes, or the exponents of its values, so that its values are
/// small and finite.
fn tame(format: Format, block: &mut [u8], random: &mut Random) {
    let [low, sign, value @ ..] = random.word().to_le_bytes();
    // The high byte of an f16, with its exponent: for about 2^-4 where the f16 is the value itself, about
    // 2^-11 where it scales a block of 32, and less in a block of 256, where the scale of a part multiplies
    // it too.
    let exponent = match format.block_values() {
        1 => 0x2c,
        32 => 0x10,
        _ => 0x00,
    };
    for (i, half) in halves(format).iter().enumerate() {
        block[*half..half + 2].copy_from_slice(&[low ^ value[i], exponent | ((sign << i) & 0x80)]);
    }
    match format {
        Format::F32 => block[3] = 0x3d | (sign & 0x80),
        Format::BF16 => block[1] = 0x3d | (sign & 0x80),
        Format::MXFP4 => block[0] = 119,
        _ => (),
    }
}

impl Tensor {
    /// A matrix of small random values.
    pub fn random(name: &str, format: Format, rows: usize, columns: usize, seed: u64) -> Self {
        let block_bytes = format.block_bytes();
        let mut bytes = vec![0; rows * format.row_bytes(columns)];
        bytes.par_chunks_mut(block_bytes << 12).enumerate().for_each(|(chunk, bytes)| {
            let mut random = Random(seed.wrapping_mul(0x0100_0000_01b3).wrapping_add(chunk as u64));
            random.0 = random.word();
            for eight in bytes.chunks_mut(8) {
                eight.copy_from_slice(&random.word().to_le_bytes()[..eight.len()]);
            }
            bytes.chunks_mut(block_bytes).for_each(|block| tame(format, block, &mut random));
        });
        let range = 0..bytes.len();
        Self::new(name, format, vec![rows, columns], Bytes::new(bytes), range)
    }

    /// The same bytes under another name and shape.
    pub(crate) fn named(self, name: &str, shape: &[usize]) -> Self {
        Self { name: name.to_owned(), shape: shape.to_vec(), ..self }
    }
}
