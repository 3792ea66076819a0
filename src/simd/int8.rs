//! Products of quantised rows with rows that are rounded to eight bits: `--math fast`. A block's products are sums of
//! integers, and its scales multiply once. As llama.cpp's CPU path has it, but for scales in f32.
//!
//! A value of the formats here is s · u + m, u a small integer, s and m the same for 16 or 32 of them; so that
//! Σ (s u + m) x = s Σ u x + m Σ x.

use super::{
    lanes::{Job, Lanes},
    products::Rows,
};
use crate::weights::{Format, unpack::half, unpack::scale_and_offset};

/// Values that share a scale.
pub const BLOCK: usize = 32;

/// A row of x in blocks: x ≈ d · q.
#[derive(Default)]
pub struct Rounded {
    q: Vec<i8>,
    d: Vec<f32>,
    /// d times the sums of a block's halves.
    sums: Vec<[f32; 2]>,
}

impl Rounded {
    /// Of values that are a whole number of blocks: d = max |x| / 127, q to the nearest.
    pub fn new(x: &[f32]) -> Self {
        let (blocks, rest) = x.as_chunks::<BLOCK>();
        assert!(rest.is_empty(), "whole blocks");
        let mut rounded = Self::default();
        for x in blocks {
            let mut top = 0.0f32;
            for x in x {
                top = top.max(x.abs());
            }
            let d = top / 127.0;
            let by = if d > 0.0 { 1.0 / d } else { 0.0 };
            let q = x.map(|x| (x * by).round_ties_even() as i8);
            let half = |half: &[i8]| d * half.iter().map(|q| i32::from(*q)).sum::<i32>() as f32;
            rounded.sums.push([half(&q[..BLOCK / 2]), half(&q[BLOCK / 2..])]);
            rounded.d.push(d);
            rounded.q.extend(q);
        }
        rounded
    }

    /// What it stands for.
    pub fn values(&self) -> Vec<f32> {
        self.q.iter().enumerate().map(|(i, q)| self.d[i / BLOCK] * f32::from(*q)).collect()
    }
}

/// Whether rows of a format, so many values wide, have a form here, if the lanes have one for products of bytes.
pub fn takes(format: Format, columns: usize) -> bool {
    use Format::*;
    matches!(format, Q8_0 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q4_K | Q5_K | Q6_K) && columns.is_multiple_of(BLOCK)
}

/// `out[i · stride + row] = rows[row] · x[i]`; whether the lanes have such a form.
pub struct RoundedProducts<'a> {
    pub rows: Rows<'a>,
    pub x: &'a [Rounded],
    pub out: &'a mut [f32],
    pub stride: usize,
}

impl Job for RoundedProducts<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { rows, x, out, stride } = self;
        rows.check();
        assert!(x.iter().all(|x| x.d.len() * BLOCK == rows.columns), "a block for each of the rows'");
        match rows.format {
            Format::Q8_0 => products::<L, Q8_0>(rows, x, out, stride),
            Format::Q4_0 => products::<L, Q4_0>(rows, x, out, stride),
            Format::Q4_1 => products::<L, Q4_1>(rows, x, out, stride),
            Format::Q5_0 => products::<L, Q5_0>(rows, x, out, stride),
            Format::Q5_1 => products::<L, Q5_1>(rows, x, out, stride),
            Format::Q4_K => products::<L, Q4_K>(rows, x, out, stride),
            Format::Q5_K => products::<L, Q5_K>(rows, x, out, stride),
            Format::Q6_K => products::<L, Q6_K>(rows, x, out, stride),
            other => panic!("{other:?} has no products of bytes"),
        }
    }
}

/// 32 values of a block: what their s and m are, the halves', and their u.
struct Part {
    u: [u8; BLOCK],
    s: [f32; 2],
    m: [f32; 2],
}

/// A format as such parts.
trait Ints {
    const BYTES: usize;
    /// Parts of a block.
    const PARTS: usize = 1;
    /// Whether u is signed, and m nothing.
    const SIGNED: bool = false;
    /// Whether the halves differ in s and m.
    const HALVES: bool = false;
    fn part(block: &[u8], part: usize) -> Part;
}

#[inline(always)]
fn products<L: Lanes, F: Ints>(rows: Rows, x: &[Rounded], out: &mut [f32], stride: usize) {
    for row in 0..rows.count {
        let packed = &rows.packed[row * rows.row_bytes..];
        for (i, x) in x.iter().enumerate() {
            out[i * stride + row] = product::<L, F>(packed, x);
        }
    }
}

#[inline(always)]
fn product<L: Lanes, F: Ints>(packed: &[u8], x: &Rounded) -> f32 {
    let mut total = <L::Eight as Lanes>::splat(0.0);
    let mut offsets = [0.0f32; 2];
    let blocks = x.d.len() / F::PARTS;
    let packed = &packed[..blocks * F::BYTES];
    let (q, d, sums) =
        (&x.q[..blocks * F::PARTS * BLOCK], &x.d[..blocks * F::PARTS], &x.sums[..blocks * F::PARTS]);
    for b in 0..blocks {
        let block = &packed[b * F::BYTES..][..F::BYTES];
        for p in 0..F::PARTS {
            let at = b * F::PARTS + p;
            let Part { u, s, m } = F::part(block, p);
            // SAFETY: both are 32 bytes.
            let products = unsafe {
                if F::SIGNED {
                    L::byte_products::<true>(u.as_ptr(), q.as_ptr().add(at * BLOCK))
                } else {
                    L::byte_products::<false>(u.as_ptr(), q.as_ptr().add(at * BLOCK))
                }
            };
            let products = products.expect("lanes with products of bytes");
            let scale = if F::HALVES {
                let [a, b] = [s[0] * d[at], s[1] * d[at]];
                let both = [a, a, a, a, b, b, b, b];
                // SAFETY: eight values.
                unsafe { <L::Eight as Lanes>::load(both.as_ptr()) }
            } else {
                <L::Eight as Lanes>::splat(s[0] * d[at])
            };
            total = <L::Eight as Lanes>::multiply_add(products, scale, total);
            if !F::SIGNED {
                for h in 0..2 {
                    offsets[h] += m[h] * sums[at][h];
                }
            }
        }
    }
    <L::Eight as Lanes>::sum(total) + (offsets[0] + offsets[1])
}

/// The low four bits of 16 bytes, then the high.
#[inline(always)]
fn nibbles(qs: &[u8]) -> [u8; BLOCK] {
    let qs: &[u8; 16] = qs.first_chunk().expect("16 bytes");
    let mut u = [0; BLOCK];
    for i in 0..16 {
        u[i] = qs[i] & 15;
        u[i + 16] = qs[i] >> 4;
    }
    u
}

/// The same with a fifth bit each.
#[inline(always)]
fn five_bits(qs: &[u8], high: &[u8]) -> [u8; BLOCK] {
    let mut u = nibbles(qs);
    let high: &[u8; 4] = high.first_chunk().expect("4 bytes");
    // Each byte of the bits eight times, so that lanes can take one each.
    for i in 0..BLOCK {
        u[i] |= if high[i / 8] & (1 << (i % 8)) != 0 { 16 } else { 0 };
    }
    u
}

macro_rules! ints {
    ($name:ident, $bytes:literal, |$block:ident| $part:expr $(, $const:ident = $value:expr)*) => {
        #[allow(non_camel_case_types)] // ggml's own names
        struct $name;
        impl Ints for $name {
            const BYTES: usize = $bytes;
            $(const $const: bool = $value;)*
            #[inline(always)]
            fn part($block: &[u8], _: usize) -> Part {
                $part
            }
        }
    };
}

#[inline(always)]
fn part(u: [u8; BLOCK], s: f32, m: f32) -> Part {
    Part { u, s: [s; 2], m: [m; 2] }
}

ints!(Q8_0, 34, |b| part(*b[2..].first_chunk().expect("32 bytes"), half(b, 0), 0.0), SIGNED = true);
ints!(Q4_0, 18, |b| part(nibbles(&b[2..]), half(b, 0), -8.0 * half(b, 0)));
ints!(Q4_1, 20, |b| part(nibbles(&b[4..]), half(b, 0), half(b, 2)));
ints!(Q5_0, 22, |b| part(five_bits(&b[6..], &b[2..]), half(b, 0), -16.0 * half(b, 0)));
ints!(Q5_1, 24, |b| part(five_bits(&b[8..], &b[4..]), half(b, 0), half(b, 2)));

#[allow(non_camel_case_types)]
struct Q4_K;
impl Ints for Q4_K {
    const BYTES: usize = 144;
    const PARTS: usize = 8;
    #[inline(always)]
    fn part(block: &[u8], p: usize) -> Part {
        let (scale, offset) = scale_and_offset(&block[4..16], p);
        let qs: &[u8; BLOCK] = block[16 + p / 2 * 32..].first_chunk().expect("32 bytes");
        let mut u = [0; BLOCK];
        for i in 0..BLOCK {
            u[i] = if p.is_multiple_of(2) { qs[i] & 15 } else { qs[i] >> 4 };
        }
        part(u, half(block, 0) * scale, -half(block, 2) * offset)
    }
}

#[allow(non_camel_case_types)]
struct Q5_K;
impl Ints for Q5_K {
    const BYTES: usize = 176;
    const PARTS: usize = 8;
    #[inline(always)]
    fn part(block: &[u8], p: usize) -> Part {
        let (scale, offset) = scale_and_offset(&block[4..16], p);
        let high: &[u8; BLOCK] = block[16..].first_chunk().expect("32 bytes");
        let qs: &[u8; BLOCK] = block[48 + p / 2 * 32..].first_chunk().expect("32 bytes");
        let mut u = [0; BLOCK];
        for i in 0..BLOCK {
            let low = if p.is_multiple_of(2) { qs[i] & 15 } else { qs[i] >> 4 };
            u[i] = low | if high[i] & (1 << p) != 0 { 16 } else { 0 };
        }
        part(u, half(block, 0) * scale, -half(block, 2) * offset)
    }
}

#[allow(non_camel_case_types)]
struct Q6_K;
impl Ints for Q6_K {
    const BYTES: usize = 210;
    const PARTS: usize = 8;
    const HALVES: bool = true;
    #[inline(always)]
    fn part(block: &[u8], p: usize) -> Part {
        let (n, quarter) = (p / 4, p % 4);
        let low: &[u8; BLOCK] = block[n * 64 + quarter % 2 * 32..].first_chunk().expect("32 bytes");
        let high: &[u8; BLOCK] = block[128 + n * 32..].first_chunk().expect("32 bytes");
        let mut u = [0; BLOCK];
        for i in 0..BLOCK {
            let nibble = if quarter < 2 { low[i] & 15 } else { low[i] >> 4 };
            u[i] = nibble | ((high[i] >> (2 * quarter)) & 3) << 4;
        }
        let d = half(block, 208);
        let s = [d * f32::from(block[192 + 2 * p] as i8), d * f32::from(block[193 + 2 * p] as i8)];
        Part { u, s, m: [-32.0 * s[0], -32.0 * s[1]] }
    }
}
