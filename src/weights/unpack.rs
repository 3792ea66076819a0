//! Dequantisation, from packed bytes to f32: the plain formats, and ggml's block formats. Bit for bit the
//! same as the dequantisation of the `gguf` Python package (tests/gguf.rs).
//!
//! In the comments on block formats, `d` is a block's scale, `m` or `dmin` its offset, `q` the bits of the
//! values. The fields are listed in the order in which a block stores them.

use half::{bf16 as Bf16, f16 as F16};

/// The f16 at an offset in a block, as f32.
#[inline(always)]
pub(crate) fn half(bytes: &[u8], at: usize) -> f32 {
    let bits = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    if bits & 0x7c00 == 0x7c00 {
        return F16::from_bits(bits).to_f32();
    }
    // Move exponent and fraction to their places in an f32, then multiply by 2^112, the difference of the
    // exponent biases. This is exact for subnormals too, and avoids a call to the general conversion.
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// IEEE 754 binary32; any number of values
pub fn f32(packed: &[u8], out: &mut [f32]) {
    for (out, bytes) in out.iter_mut().zip(packed.as_chunks::<4>().0) {
        *out = f32::from_le_bytes(*bytes);
    }
}

/// IEEE 754 binary16; any number of values
pub fn f16(packed: &[u8], out: &mut [f32]) {
    for (out, bytes) in out.iter_mut().zip(packed.as_chunks::<2>().0) {
        *out = F16::from_le_bytes(*bytes).to_f32();
    }
}

/// bfloat16; any number of values
pub fn bf16(packed: &[u8], out: &mut [f32]) {
    for (out, bytes) in out.iter_mut().zip(packed.as_chunks::<2>().0) {
        *out = Bf16::from_le_bytes(*bytes).to_f32();
    }
}

/// Maps 32 nibbles in 16 bytes to values by `value`: the low nibbles are values 0 to 15, the high ones 16 to
/// 31.
#[inline(always)]
fn nibbles(qs: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    // Two loops over arrays of known length, which the compiler vectorises.
    let qs: &[u8; 16] = qs.first_chunk().expect("16 bytes");
    let [low, high] = out.as_chunks_mut::<16>().0 else { panic!("32 values") };
    for (out, q) in low.iter_mut().zip(qs) {
        *out = value(q & 15);
    }
    for (out, q) in high.iter_mut().zip(qs) {
        *out = value(q >> 4);
    }
}

/// Like `nibbles`, with a fifth (top) bit for each value from `high`.
#[inline(always)]
fn five_bits(qs: &[u8], high: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let qs: &[u8; 16] = qs.first_chunk().expect("16 bytes");
    let bits = u32::from_le_bytes(*high.first_chunk().expect("4 bytes"));
    let out: &mut [f32; 32] = out.first_chunk_mut().expect("32 values");
    for (j, out) in out.iter_mut().enumerate() {
        let low = if j < 16 { qs[j] & 15 } else { qs[j - 16] >> 4 };
        *out = value(low | (((bits >> j) & 1) << 4) as u8);
    }
}

/// d: f16, q: 32 × i8
pub fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    let out: &mut [f32; 32] = out.first_chunk_mut().expect("32 values");
    let qs: &[u8; 32] = block[2..].first_chunk().expect("32 bytes");
    for (out, q) in out.iter_mut().zip(qs) {
        *out = f32::from(*q as i8) * d;
    }
}

/// d: f16, q: 32 × 4 bits
pub fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    nibbles(&block[2..18], out, |q| d * (f32::from(q) - 8.0));
}

/// d, m: f16, q: 32 × 4 bits
pub fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    nibbles(&block[4..20], out, |q| d * f32::from(q) + m);
}

/// d: f16, q: 32 × 5 bits: first the fifth (top) bits, then the nibbles
pub fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    five_bits(&block[6..22], &block[2..6], out, |q| d * (f32::from(q) - 16.0));
}

/// d, m: f16, q: 32 × 5 bits: first the fifth (top) bits, then the nibbles
pub fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    five_bits(&block[8..24], &block[4..8], out, |q| d * f32::from(q) + m);
}

/// The levels of IQ4_NL, by their four bits.
pub const IQ4_NL: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// d: f16, q: 32 × 4 bits, each an index into [`IQ4_NL`]
pub fn iq4_nl(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    nibbles(&block[2..18], out, |q| d * f32::from(IQ4_NL[usize::from(q)]));
}

/// Twice the values of MXFP4, by their four bits (OCP Microscaling Formats, e2m1).
pub const MXFP4: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of an e8m0 number, a power of two: 2^(e − 128).
#[inline(always)]
pub(super) fn e8m0_half(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// d: e8m0, q: 32 × 4 bits, each an index into [`MXFP4`]
pub fn mxfp4(block: &[u8], out: &mut [f32]) {
    let d = e8m0_half(block[0]);
    nibbles(&block[1..17], out, |q| d * f32::from(MXFP4[usize::from(q)]));
}

/// scales: 16 × (4 bits of scale, 4 of offset), q: 256 × 2 bits, d, dmin: f16
pub fn q2_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half(block, 80), half(block, 82));
    for (s, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (scale, offset) = (d * f32::from(block[s] & 15), dmin * f32::from(block[s] >> 4));
        let (qs, shift) = (16 + s / 8 * 32 + s % 2 * 16, s % 8 / 2 * 2);
        for (out, q) in out.iter_mut().zip(&block[qs..qs + 16]) {
            *out = scale * f32::from((q >> shift) & 3) - offset;
        }
    }
}

/// The 6-bit scale of part `s` of the sixteen parts of a Q3_K block, from -32 to 31.
#[inline(always)]
pub(super) fn q3_k_scale(scales: &[u8], s: usize) -> i8 {
    let low = if s < 8 { scales[s] & 15 } else { scales[s - 8] >> 4 };
    let high = (scales[8 + s % 4] >> (s / 4 * 2)) & 3;
    (low | (high << 4)) as i8 - 32
}

/// high: 256 × 1 bit, low: 256 × 2 bits, scales: 16 × 6 bits, d: f16
pub fn q3_k(block: &[u8], out: &mut [f32]) {
    let d = half(block, 108);
    for (s, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(q3_k_scale(&block[96..108], s));
        let (at, shift) = (s % 2 * 16, s % 8 / 2 * 2);
        let qs = &block[32 + s / 8 * 32 + at..][..16];
        for (out, (q, mask)) in out.iter_mut().zip(qs.iter().zip(&block[at..at + 16])) {
            // If the high bit is 0, the value is 4 lower.
            let high = 4.0 * f32::from(((mask >> (s / 2)) & 1) ^ 1);
            *out = scale * (f32::from((q >> shift) & 3) - high);
        }
    }
}

/// The 6-bit scale and offset of part `s` of the eight parts of a Q4_K or Q5_K block.
#[inline(always)]
pub(crate) fn scale_and_offset(scales: &[u8], s: usize) -> (f32, f32) {
    let (scale, offset) = if s < 4 {
        (scales[s] & 63, scales[s + 4] & 63)
    } else {
        let both = scales[s + 4];
        ((both & 15) | ((scales[s - 4] >> 6) << 4), (both >> 4) | ((scales[s] >> 6) << 4))
    };
    (f32::from(scale), f32::from(offset))
}

/// d, dmin: f16, scales: 8 × (6 bits of scale, 6 of offset), q: 256 × 4 bits
pub fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    for (s, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, offset) = scale_and_offset(&block[4..16], s);
        let (scale, offset) = (d * scale, dmin * offset);
        for (out, q) in out.iter_mut().zip(&block[16 + s / 2 * 32..][..32]) {
            *out = scale * f32::from((q >> (s % 2 * 4)) & 15) - offset;
        }
    }
}

/// d, dmin: f16, scales as in Q4_K, high: 256 × 1 bit, low: 256 × 4 bits
pub fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    for (s, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, offset) = scale_and_offset(&block[4..16], s);
        let (scale, offset) = (d * scale, dmin * offset);
        let qs = &block[48 + s / 2 * 32..][..32];
        for (out, (q, high)) in out.iter_mut().zip(qs.iter().zip(&block[16..48])) {
            let q = ((q >> (s % 2 * 4)) & 15) | (((high >> s) & 1) << 4);
            *out = scale * f32::from(q) - offset;
        }
    }
}

/// low: 256 × 4 bits, high: 256 × 2 bits, scales: 16 × i8, d: f16
pub fn q6_k(block: &[u8], out: &mut [f32]) {
    let d = half(block, 208);
    for (s, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[192 + s] as i8);
        let (n, r) = (s / 8, s % 8 * 16);
        let low = &block[n * 64 + r % 64..][..16];
        let high = &block[128 + n * 32 + r % 32..][..16];
        for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
            let q = ((low >> (r / 64 * 4)) & 15) | (((high >> (r / 32 * 2)) & 3) << 4);
            *out = scale * (f32::from(q) - 32.0);
        }
    }
}
