//! Dequantises blocks with SIMD, for the most used formats; the others use weights/unpack.rs. The results are
//! those of weights/unpack.rs, except that a fused multiply-add rounds once instead of twice.

use super::lanes::Lanes;
use crate::weights::{Format, unpack};

/// The eight bytes from offset `at` on.
#[inline(always)]
fn eight(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*block[at..].first_chunk().expect("eight bytes"))
}

/// Mask for the low four bits of each byte.
const NIBBLES: u64 = 0x0f0f_0f0f_0f0f_0f0f;

/// Writes eight values d · q + m to `out` from index 8 i on.
#[inline(always)]
fn put<L: Lanes>(out: &mut [f32], i: usize, d: f32, q: L::V, m: f32) {
    let values = L::multiply_add(L::splat(d), q, L::splat(m));
    let eight: &mut [f32; 8] = out[8 * i..].first_chunk_mut().expect("eight values");
    // SAFETY: there are eight lanes, and room for eight values.
    unsafe { L::store(values, eight.as_mut_ptr()) };
}

/// Eight unsigned bytes as numbers.
#[inline(always)]
fn bytes<L: Lanes>(eight: u64) -> L::V {
    // SAFETY: there are eight lanes and eight bytes.
    unsafe { L::bytes(eight.to_le_bytes().as_ptr()) }
}

/// Writes 32 values d · q + m from 16 bytes of nibbles: the low nibbles are values 0 to 15, the high ones 16
/// to 31.
#[inline(always)]
fn nibbles<L: Lanes>(qs: &[u8], out: &mut [f32], d: f32, m: f32) {
    for i in 0..2 {
        let q = eight(qs, 8 * i);
        put::<L>(out, i, d, bytes::<L>(q & NIBBLES), m);
        put::<L>(out, i + 2, d, bytes::<L>((q >> 4) & NIBBLES), m);
    }
}

/// Moves bit i of the low eight bits to the lowest bit of byte i.
#[inline(always)]
fn spread(bits: u32) -> u64 {
    let each = u64::from(bits & 0xff).wrapping_mul(0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
    ((each + 0x7f7f_7f7f_7f7f_7f7f) >> 7) & 0x0101_0101_0101_0101
}

/// Like `nibbles`, with a fifth (top) bit for each value from `high`.
#[inline(always)]
fn five_bits<L: Lanes>(qs: &[u8], high: &[u8], out: &mut [f32], d: f32, m: f32) {
    let high = u32::from_le_bytes(*high.first_chunk().expect("four bytes"));
    for i in 0..2 {
        let q = eight(qs, 8 * i);
        put::<L>(out, i, d, bytes::<L>((q & NIBBLES) | (spread(high >> (8 * i)) << 4)), m);
        put::<L>(out, i + 2, d, bytes::<L>(((q >> 4) & NIBBLES) | (spread(high >> (16 + 8 * i)) << 4)), m);
    }
}

/// Dequantises one block, eight values at a time.
#[inline(always)]
pub fn unpack<L: Lanes>(format: Format, block: &[u8], out: &mut [f32]) {
    const { assert!(L::N == 8) };
    let half = unpack::half;
    match format {
        Format::Q8_0 => {
            let d = half(block, 0);
            for i in 0..4 {
                // Flipping the top bit turns a signed byte into an unsigned one that is 128 higher.
                let q = eight(block, 2 + 8 * i) ^ 0x8080_8080_8080_8080;
                put::<L>(out, i, d, bytes::<L>(q), -128.0 * d);
            }
        }
        Format::Q4_0 => {
            let d = half(block, 0);
            nibbles::<L>(&block[2..], out, d, -8.0 * d);
        }
        Format::Q4_1 => nibbles::<L>(&block[4..], out, half(block, 0), half(block, 2)),
        Format::Q5_0 => {
            let d = half(block, 0);
            five_bits::<L>(&block[6..], &block[2..], out, d, -16.0 * d);
        }
        Format::Q5_1 => five_bits::<L>(&block[8..], &block[4..], out, half(block, 0), half(block, 2)),
        Format::Q4_K | Format::Q5_K => {
            let (d, dmin) = (half(block, 0), half(block, 2));
            for s in 0..8 {
                let (scale, offset) = unpack::scale_and_offset(&block[4..16], s);
                for i in 0..4 {
                    let low = |qs: usize| (eight(block, qs + s / 2 * 32 + 8 * i) >> (s % 2 * 4)) & NIBBLES;
                    let q = match format {
                        Format::Q4_K => low(16),
                        _ => {
                            let fifth = (eight(block, 16 + 8 * i) >> s) & 0x0101_0101_0101_0101;
                            low(48) | (fifth << 4)
                        }
                    };
                    put::<L>(out, 4 * s + i, d * scale, bytes::<L>(q), -dmin * offset);
                }
            }
        }
        Format::Q6_K => {
            let d = half(block, 208);
            for s in 0..16 {
                let scale = d * f32::from(block[192 + s] as i8);
                let (n, r) = (s / 8, s % 8 * 16);
                for i in 0..2 {
                    let low = (eight(block, n * 64 + r % 64 + 8 * i) >> (r / 64 * 4)) & NIBBLES;
                    let high = eight(block, 128 + n * 32 + r % 32 + 8 * i) >> (r / 32 * 2);
                    let q = low | ((high & 0x0303_0303_0303_0303) << 4);
                    put::<L>(out, 2 * s + i, scale, bytes::<L>(q), -32.0 * scale);
                }
            }
        }
        _ => format.unpack(block, out),
    }
}
