//! Quantisation, from f32 to packed bytes: the inverse of [`super::unpack`].
//!
//! Formats with blocks of 32 values are packed bit for bit as the `gguf` Python package does
//! (tests/fixtures/formats.py). IQ4_NL and the formats with blocks of 256 have no such reference: each part
//! of a block gets the scale, and the offset if the format has one, with the least squared error among those
//! tried. Giving large values more weight in that error was tried in three ways; all gave higher perplexities
//! (benches/RESULTS.md).
//!
//! Each function that is named after a format takes the values of one block and writes all of its bytes.

use super::unpack;
use half::{bf16 as Bf16, f16 as F16};

/// IEEE 754 binary32; any number of values
pub fn f32(values: &[f32], packed: &mut [u8]) {
    for (value, bytes) in values.iter().zip(packed.as_chunks_mut().0) {
        *bytes = value.to_le_bytes();
    }
}

/// IEEE 754 binary16, rounded to nearest; any number of values
pub fn f16(values: &[f32], packed: &mut [u8]) {
    for (value, bytes) in values.iter().zip(packed.as_chunks_mut().0) {
        *bytes = F16::from_f32(*value).to_le_bytes();
    }
}

/// bfloat16, rounded to nearest; any number of values
pub fn bf16(values: &[f32], packed: &mut [u8]) {
    for (value, bytes) in values.iter().zip(packed.as_chunks_mut().0) {
        *bytes = Bf16::from_f32(*value).to_le_bytes();
    }
}

/// Writes a value as f16, and returns the rounded value.
fn put_half(block: &mut [u8], at: usize, value: f32) -> f32 {
    block[at..at + 2].copy_from_slice(&F16::from_f32(value).to_le_bytes());
    unpack::half(block, at)
}

/// 1 / d, or 0 if d is 0, as in a block of zeros.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Packs the low four bits of 32 levels into 16 bytes: levels 0 to 15 as low nibbles, 16 to 31 as high
/// nibbles.
fn put_nibbles(qs: &mut [u8], q: [u8; 32]) {
    for (j, byte) in qs.iter_mut().enumerate() {
        *byte = (q[j] & 15) | (q[j + 16] & 15) << 4;
    }
}

/// Packs the fifth bit of each level into four bytes.
fn put_fifth_bits(high: &mut [u8], q: [u8; 32]) {
    let bits = (0..32).fold(0u32, |bits, j| bits | u32::from(q[j] >> 4 & 1) << j);
    high.copy_from_slice(&bits.to_le_bytes());
}

/// The first N values as an array: a whole block or part.
fn exactly<const N: usize>(values: &[f32]) -> &[f32; N] {
    values.first_chunk().expect("a whole block")
}

/// The value with the largest magnitude; the first of several.
fn extreme(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |most, v| if v.abs() > most.abs() { *v } else { most })
}

/// Symmetric quantisation: the scale d that maps the extreme value to level 0, and the levels, from 0 to
/// `most`. The level `zero` stands for 0: x ≈ d · (level − zero).
fn around(x: &[f32; 32], zero: f32, most: u8) -> (f32, [u8; 32]) {
    let d = extreme(x) / -zero;
    let inverse = inverse(d);
    (d, x.map(|x| ((x * inverse + (zero + 0.5)) as u8).min(most)))
}

/// Quantisation with an offset: the scale d and the offset m that map the lowest value to level 0 and the
/// highest to level `most`, and the levels: x ≈ d · level + m.
fn between(x: &[f32; 32], most: u8) -> (f32, f32, [u8; 32]) {
    let (low, high) = x.iter().fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
    let d = (high - low) / f32::from(most);
    let inverse = inverse(d);
    (d, low, x.map(|x| (((x - low) * inverse + 0.5) as u8).min(most)))
}

pub fn q8_0(values: &[f32], block: &mut [u8]) {
    let x: &[f32; 32] = exactly(values);
    let d = extreme(x).abs() / 127.0;
    let inverse = inverse(d);
    put_half(block, 0, d);
    for (q, x) in block[2..34].iter_mut().zip(x) {
        *q = (x * inverse).round() as i8 as u8;
    }
}

pub fn q4_0(values: &[f32], block: &mut [u8]) {
    let (d, q) = around(exactly(values), 8.0, 15);
    put_half(block, 0, d);
    put_nibbles(&mut block[2..18], q);
}

pub fn q4_1(values: &[f32], block: &mut [u8]) {
    let (d, m, q) = between(exactly(values), 15);
    put_half(block, 0, d);
    put_half(block, 2, m);
    put_nibbles(&mut block[4..20], q);
}

pub fn q5_0(values: &[f32], block: &mut [u8]) {
    let (d, q) = around(exactly(values), 16.0, 31);
    put_half(block, 0, d);
    put_fifth_bits(&mut block[2..6], q);
    put_nibbles(&mut block[6..22], q);
}

pub fn q5_1(values: &[f32], block: &mut [u8]) {
    let (d, m, q) = between(exactly(values), 31);
    put_half(block, 0, d);
    put_half(block, 2, m);
    put_fifth_bits(&mut block[4..8], q);
    put_nibbles(&mut block[8..24], q);
}

pub fn mxfp4(values: &[f32], block: &mut [u8]) {
    let x: &[f32; 32] = exactly(values);
    let most = extreme(x).abs();
    block[0] = if most > 0.0 { (most.log2().floor() + 125.0) as u8 } else { 0 };
    let d = unpack::e8m0_half(block[0]);
    // The index of the level nearest to x; the first of several.
    let place = |x: f32| {
        let error = |place: u8| (d * f32::from(unpack::MXFP4[usize::from(place)]) - x).abs();
        (1..16).fold(0, |best, place| if error(place) < error(best) { place } else { best })
    };
    put_nibbles(&mut block[1..17], x.map(place));
}

pub fn iq4_nl(values: &[f32], block: &mut [u8]) {
    // The midpoints between neighbouring levels.
    const BORDERS: [f32; 15] = {
        let (mut borders, mut i) = ([0.0; 15], 0);
        while i < 15 {
            borders[i] = (unpack::IQ4_NL[i] as f32 + unpack::IQ4_NL[i + 1] as f32) / 2.0;
            i += 1;
        }
        borders
    };
    let place = |x: f32| BORDERS.iter().map(|border| u8::from(x > *border)).sum::<u8>();
    let x: &[f32; 32] = exactly(values);
    let d = least_error(extreme(x), -127.0, 7, |d| {
        let inverse = inverse(d);
        x.iter().fold(Fit::default(), |fit, x| {
            fit.and(*x, f32::from(unpack::IQ4_NL[usize::from(place(x * inverse))]))
        })
    });
    let inverse = inverse(put_half(block, 0, d));
    put_nibbles(&mut block[2..18], x.map(|x| place(x * inverse)));
}

/// Rounds to the nearest integer, ties to even, for magnitudes below 2²²: adding 1.5 · 2²³ drops the
/// fraction.
#[inline(always)]
fn round(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// The sums Σ x q and Σ q² over values x and their levels q, for the least-squares fit of d·q ≈ x.
#[derive(Clone, Copy, Default)]
struct Fit {
    xq: f32,
    qq: f32,
}

impl Fit {
    #[inline(always)]
    fn and(self, x: f32, q: f32) -> Self {
        Self { xq: self.xq + x * q, qq: self.qq + q * q }
    }
    /// The least-squares scale d, and by how much it reduces the squared error from Σ x².
    fn best(self) -> (f32, f32) {
        let d = self.xq * inverse(self.qq);
        (d, d * self.xq)
    }
}

/// The best scale found by a search that starts from 2 `tries` + 1 scales, which map `extreme` to about the
/// level `lowest`. From each it takes two steps: quantise with the scale, and replace it by the least-squares
/// scale for the resulting levels. `levels` quantises with a scale and returns the sums of the fit.
fn least_error(extreme: f32, lowest: f32, tries: i32, levels: impl Fn(f32) -> Fit) -> f32 {
    let (mut best, mut gain) = (0.0, 0.0);
    for i in -tries..=tries {
        let mut d = extreme / (lowest * (1.0 + 0.15 * i as f32 / tries as f32));
        for _ in 0..2 {
            if d == 0.0 || !d.is_finite() {
                break;
            }
            let (better, gained) = levels(d).best();
            if gained > gain {
                (best, gain) = (better, gained);
            }
            d = better;
        }
    }
    best
}

/// The scale d of x ≈ d·q, with integers q from `lowest` to `-lowest - 1`.
fn scale<const N: usize>(x: &[f32; N], lowest: f32) -> f32 {
    least_error(extreme(x), lowest, 9, |d| {
        let inverse = inverse(d);
        x.iter().fold(Fit::default(), |fit, x| fit.and(*x, round(x * inverse).clamp(lowest, -lowest - 1.0)))
    })
}

/// The scale d and the offset m of x ≈ d·q − m, with integers q from 0 to `most`, and m ≥ 0.
fn scale_and_offset<const N: usize>(x: &[f32; N], most: f32) -> (f32, f32) {
    let (low, high) = x.iter().fold((0.0f32, f32::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
    if high <= low {
        return (0.0, -low);
    }
    let (n, x1) = (N as f32, x.iter().sum::<f32>());
    let (mut best, mut least) = ((0.0, -low), f32::MAX);
    const TRIES: i32 = 8;
    for i in 0..=TRIES {
        // Start from scales that map the range of x to `most` - 1 up to `most` + 1 steps.
        let (mut d, mut m) = ((high - low) / (most - 1.0 + 2.0 * i as f32 / TRIES as f32), -low);
        for _ in 0..3 {
            let q = levels(x, d, m, 0.0, most);
            let (mut q1, mut q2, mut xq) = (0.0, 0.0, 0.0);
            for (x, q) in x.iter().zip(&q) {
                q1 += q;
                q2 += q * q;
                xq += x * q;
            }
            // The least-squares line through the points (q, x); where it gives m < 0, the one through the
            // origin.
            let determinant = n * q2 - q1 * q1;
            if determinant <= 0.0 {
                break;
            }
            (d, m) = ((n * xq - x1 * q1) / determinant, (q1 * xq - q2 * x1) / determinant);
            if m < 0.0 {
                (d, m) = (xq / q2, 0.0);
            }
            if !d.is_finite() || d <= 0.0 {
                break;
            }
            let error = x.iter().zip(&q).map(|(x, q)| (d * q - m - x) * (d * q - m - x)).sum::<f32>();
            if error < least {
                (best, least) = ((d, m), error);
            }
        }
    }
    best
}

/// The level nearest to each x for the scale d and the offset m.
fn levels<const N: usize>(x: &[f32; N], d: f32, m: f32, lowest: f32, highest: f32) -> [f32; N] {
    let inverse = inverse(d);
    x.map(|x| round((x + m) * inverse).clamp(lowest, highest))
}

/// Divides a block of 256 values into P parts of N values.
fn parts<const N: usize, const P: usize>(values: &[f32]) -> &[[f32; N]; P] {
    exactly::<256>(values).as_chunks().0.first_chunk().expect("256 = N · P")
}

/// Quantises the scales and offsets of a block's parts to integers from 0 to `most`. Returns the integers,
/// and the factors d and dmin that they are multiplied by, which it writes as f16 to `block` at the two
/// offsets in `at`.
fn small_scales<const P: usize>(
    fits: [(f32, f32); P],
    most: f32,
    block: &mut [u8],
    at: [usize; 2],
) -> ([(u8, u8); P], f32, f32) {
    let (scale, offset) = fits.iter().fold((0.0f32, 0.0f32), |(a, b), (d, m)| (a.max(*d), b.max(*m)));
    let (d, dmin) = (put_half(block, at[0], scale / most), put_half(block, at[1], offset / most));
    let (by, by_min) = (inverse(d), inverse(dmin));
    let small = |value: f32| round(value).clamp(0.0, most) as u8;
    (fits.map(|(scale, offset)| (small(scale * by), small(offset * by_min))), d, dmin)
}

pub fn q2_k(values: &[f32], block: &mut [u8]) {
    let parts = parts::<16, 16>(values);
    let (small, d, dmin) =
        small_scales(parts.each_ref().map(|x| scale_and_offset(x, 3.0)), 15.0, block, [80, 82]);
    block[..80].fill(0);
    for (s, (x, (scale, offset))) in parts.iter().zip(small).enumerate() {
        block[s] = scale | offset << 4;
        let q = levels(x, d * f32::from(scale), dmin * f32::from(offset), 0.0, 3.0);
        let (at, shift) = (16 + s / 8 * 32 + s % 2 * 16, s % 8 / 2 * 2);
        for (byte, q) in block[at..at + 16].iter_mut().zip(q) {
            *byte |= (q as u8) << shift;
        }
    }
}

pub fn q3_k(values: &[f32], block: &mut [u8]) {
    let parts = parts::<16, 16>(values);
    let scales = parts.each_ref().map(|x| scale(x, -4.0));
    let d = put_half(block, 108, extreme(&scales) / -32.0);
    let by = inverse(d);
    block[..108].fill(0);
    for (s, (x, scale)) in parts.iter().zip(scales).enumerate() {
        let scale = round(scale * by).clamp(-32.0, 31.0);
        let bits = (scale + 32.0) as u8;
        block[96 + s % 8] |= (bits & 15) << (s / 8 * 4);
        block[104 + s % 4] |= (bits >> 4) << (s / 4 * 2);
        let q = levels(x, d * scale, 0.0, -4.0, 3.0);
        let (at, shift) = (s % 2 * 16, s % 8 / 2 * 2);
        for (i, q) in q.into_iter().enumerate() {
            let q = (q + 4.0) as u8;
            block[32 + s / 8 * 32 + at + i] |= (q & 3) << shift;
            block[at + i] |= (q >> 2) << (s / 2);
        }
    }
}

/// Packs a 6-bit scale and a 6-bit offset for each of eight parts into twelve bytes.
fn put_scales_and_offsets(scales: &mut [u8], small: [(u8, u8); 8]) {
    scales.fill(0);
    for (s, (scale, offset)) in small.into_iter().enumerate() {
        if s < 4 {
            scales[s] |= scale;
            scales[s + 4] |= offset;
        } else {
            scales[s + 4] = (scale & 15) | (offset & 15) << 4;
            scales[s - 4] |= scale >> 4 << 6;
            scales[s] |= offset >> 4 << 6;
        }
    }
}

/// Shared by Q4_K and Q5_K: writes the scales and offsets to `block`, and returns the levels of its eight
/// parts, from 0 to `most`.
fn k_levels(values: &[f32], most: f32, block: &mut [u8]) -> [[u8; 32]; 8] {
    let parts = parts::<32, 8>(values);
    let (small, d, dmin) =
        small_scales(parts.each_ref().map(|x| scale_and_offset(x, most)), 63.0, block, [0, 2]);
    put_scales_and_offsets(&mut block[4..16], small);
    std::array::from_fn(|s| {
        let (scale, offset) = small[s];
        levels(&parts[s], d * f32::from(scale), dmin * f32::from(offset), 0.0, most).map(|q| q as u8)
    })
}

/// Packs the low four bits of the levels: each pair of parts into 32 bytes, the even part as low nibbles, the
/// odd one as high nibbles.
fn put_pairs(qs: &mut [u8], q: &[[u8; 32]; 8]) {
    for (pair, qs) in q.as_chunks::<2>().0.iter().zip(qs.as_chunks_mut::<32>().0) {
        for (i, byte) in qs.iter_mut().enumerate() {
            *byte = (pair[0][i] & 15) | (pair[1][i] & 15) << 4;
        }
    }
}

pub fn q4_k(values: &[f32], block: &mut [u8]) {
    let q = k_levels(values, 15.0, block);
    put_pairs(&mut block[16..144], &q);
}

pub fn q5_k(values: &[f32], block: &mut [u8]) {
    let q = k_levels(values, 31.0, block);
    for (i, byte) in block[16..48].iter_mut().enumerate() {
        *byte = (0..8).fold(0, |bits, s| bits | (q[s][i] >> 4) << s);
    }
    put_pairs(&mut block[48..176], &q);
}

pub fn q6_k(values: &[f32], block: &mut [u8]) {
    let parts = parts::<16, 16>(values);
    let scales = parts.each_ref().map(|x| scale(x, -32.0));
    let d = put_half(block, 208, extreme(&scales) / -128.0);
    let by = inverse(d);
    block[..192].fill(0);
    for (s, (x, scale)) in parts.iter().zip(scales).enumerate() {
        let scale = round(scale * by).clamp(-128.0, 127.0);
        block[192 + s] = scale as i8 as u8;
        let q = levels(x, d * scale, 0.0, -32.0, 31.0).map(|q| (q + 32.0) as u8);
        let (n, r) = (s / 8, s % 8 * 16);
        for (i, q) in q.into_iter().enumerate() {
            block[n * 64 + r % 64 + i] |= (q & 15) << (r / 64 * 4);
            block[128 + n * 32 + r % 32 + i] |= (q >> 4) << (r / 32 * 2);
        }
    }
}
