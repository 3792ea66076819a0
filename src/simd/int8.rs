//! Products of quantised rows with activations that are rounded to eight bits: `--math fast`. Within a block
//! the products are summed as integers, and the scales multiply the sum once. As in llama.cpp's CPU backend,
//! except that scales are f32.
//!
//! A value of the formats here is s · u + m, where u is a small integer, and s and m are the same for 16 or
//! 32 values. Therefore Σ (s u + m) x = s Σ u x + m Σ x.

use super::{
    highest,
    lanes::{Job, Lanes},
    products::PackedRows,
};
use crate::weights::Format;

/// Values in a block of rounded activations, which share a scale.
pub const BLOCK: usize = 32;

/// A row of activations x, rounded in blocks: x ≈ d · q.
#[derive(Default)]
pub struct Rounded {
    q: Vec<i8>,
    /// Of each block, with zeros up to whole groups of [`PARTS`].
    d: Vec<f32>,
    /// d Σ q of each block: [0] over the block, [1] over its first half, [2] over its second half. Padded
    /// like d.
    sums: [Vec<f32>; 3],
}

/// Rounds a row, whose length is a multiple of 32, to eight bits: d = max |x| / 127 of a block, and q is the
/// nearest integer to x / d.
pub struct Round<'a>(pub &'a [f32]);

impl Job for Round<'_> {
    type Out = Rounded;
    #[inline(always)]
    fn run<L: Lanes>(self) -> Rounded {
        let (blocks, rest) = self.0.as_chunks::<BLOCK>();
        assert!(rest.is_empty(), "whole blocks");
        let mut rounded = Rounded { q: vec![0; self.0.len()], ..Rounded::default() };
        for (x, q) in blocks.iter().zip(rounded.q.as_chunks_mut::<BLOCK>().0) {
            let mut sizes = *x;
            for size in &mut sizes {
                *size = size.abs();
            }
            let d = highest(&sizes) / 127.0;
            let by = if d > 0.0 { 1.0 / d } else { 0.0 };
            // 1.5 · 2²³: adding it to a small number leaves the nearest integer in the low bits.
            const ROUND: f32 = 12_582_912.0;
            let mut halves = [0i32; 2];
            for i in 0..BLOCK {
                q[i] = (x[i] * by + ROUND).to_bits() as i8;
            }
            for i in 0..BLOCK / 2 {
                halves[0] += i32::from(q[i]);
                halves[1] += i32::from(q[i + BLOCK / 2]);
            }
            rounded.d.push(d);
            for (sums, sum) in rounded.sums.iter_mut().zip([halves[0] + halves[1], halves[0], halves[1]]) {
                sums.push(d * sum as f32);
            }
        }
        let groups = blocks.len().next_multiple_of(PARTS);
        rounded.d.resize(groups, 0.0);
        rounded.sums.iter_mut().for_each(|sums| sums.resize(groups, 0.0));
        rounded
    }
}

impl Rounded {
    /// The values that the rounded row represents.
    pub fn values(&self) -> Vec<f32> {
        self.q.iter().enumerate().map(|(i, q)| self.d[i / BLOCK] * f32::from(*q)).collect()
    }
}

/// Whether there are products here for rows of this format and width; see also
/// [`super::Simd::has_byte_products`].
pub fn takes(format: Format, columns: usize) -> bool {
    use Format::*;
    matches!(format, Q8_0 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q4_K | Q5_K | Q6_K) && columns.is_multiple_of(BLOCK)
}

/// `out[i · stride + row] = rows[row] · x[i]`, with x rounded to eight bits.
pub struct RoundedProducts<'a> {
    pub rows: PackedRows<'a>,
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
        assert!(x.iter().all(|x| x.q.len() == rows.columns), "a block for each of the rows'");
        match rows.format {
            Format::Q8_0 => products::<L, Q8_0>(rows, x, out, stride),
            Format::Q4_0 => products::<L, Q4_0>(rows, x, out, stride),
            Format::Q4_1 => products::<L, Q4_1>(rows, x, out, stride),
            Format::Q5_0 => products::<L, Q5_0>(rows, x, out, stride),
            Format::Q5_1 => products::<L, Q5_1>(rows, x, out, stride),
            Format::Q4_K => products::<L, K<false>>(rows, x, out, stride),
            Format::Q5_K => products::<L, K<true>>(rows, x, out, stride),
            Format::Q6_K => products::<L, Q6_K>(rows, x, out, stride),
            other => panic!("{other:?} has no products of bytes"),
        }
    }
}

/// Parts of 32 values that are processed together: one block of a K format, or eight blocks of another.
const PARTS: usize = 8;

/// The scales s and offsets m of such parts: [0] of the first half of a part, [1] of the second.
struct Scales {
    s: [[f32; PARTS]; 2],
    m: [[f32; PARTS]; 2],
}

/// A format, as parts of 32 integers u with scales and offsets.
trait Ints {
    /// Bytes of this many parts.
    fn bytes(parts: usize) -> usize;
    /// Whether u is signed and m is 0.
    const SIGNED: bool = false;
    /// Whether s and m differ between the halves of a part.
    const HALVES: bool = false;
    /// The scales of the first `count` parts; of all parts in K formats.
    fn scales<L: Lanes>(packed: &[u8], count: usize) -> Scales;
    /// The integers of a part.
    fn u(packed: &[u8], part: usize) -> [u8; BLOCK];
}

#[inline(always)]
fn products<L: Lanes, F: Ints>(rows: PackedRows, x: &[Rounded], out: &mut [f32], stride: usize) {
    let parts = rows.columns / BLOCK;
    for row in 0..rows.count {
        let packed = &rows.packed[row * rows.row_bytes..][..F::bytes(parts)];
        let mut first = 0;
        while first < x.len() {
            // Several rows of x share what is decoded of a row; the sums of each are the same as alone.
            let (x, out) = (&x[first..], &mut out[first * stride + row..]);
            first += match x.len() {
                8.. => several::<L, F, 8>(packed, parts, x, out, stride),
                4.. => several::<L, F, 4>(packed, parts, x, out, stride),
                2.. => several::<L, F, 2>(packed, parts, x, out, stride),
                _ => several::<L, F, 1>(packed, parts, x, out, stride),
            };
        }
    }
}

/// `out[i · stride] = row · x[i]` for the first N rows of x; N.
#[inline(always)]
fn several<L: Lanes, F: Ints, const N: usize>(
    packed: &[u8],
    parts: usize,
    x: &[Rounded],
    out: &mut [f32],
    stride: usize,
) -> usize {
    // No closures nor `map` here: they would not be compiled for the instructions of the job.
    let zero = <L::Eight>::splat(0.0);
    // Of each product: Σ s d u q, of the even and of the odd parts; and Σ m x, by the index of the part.
    let (mut even, mut odd, mut offsets) = ([zero; N], [zero; N], [zero; N]);
    let mut part = 0;
    while part < parts {
        let count = PARTS.min(parts - part);
        let packed = &packed[F::bytes(part)..];
        let of_row = F::scales::<L>(packed, count);
        // The scales of the row times those of each x; all parts of a group, for where there are fewer, they
        // are zero.
        let (mut scales, mut q) = ([[[0.0; PARTS]; 2]; N], [&[][..]; N]);
        // SAFETY: the arrays have eight values.
        unsafe {
            for j in 0..N {
                let [whole, first, second] = &x[j].sums;
                let d = eight::<L>(&x[j].d, part);
                <L::Eight>::store(times_of_row::<L>(&of_row.s[0], d), scales[j][0].as_mut_ptr());
                if F::HALVES {
                    <L::Eight>::store(times_of_row::<L>(&of_row.s[1], d), scales[j][1].as_mut_ptr());
                    let a = times_of_row::<L>(&of_row.m[0], eight::<L>(first, part));
                    let b = times_of_row::<L>(&of_row.m[1], eight::<L>(second, part));
                    offsets[j] = <L::Eight>::add(offsets[j], <L::Eight>::add(a, b));
                } else if !F::SIGNED {
                    let m = times_of_row::<L>(&of_row.m[0], eight::<L>(whole, part));
                    offsets[j] = <L::Eight>::add(offsets[j], m);
                }
                q[j] = &x[j].q[part * BLOCK..][..count * BLOCK];
            }
        }
        let mut i = 0;
        while i + 1 < count {
            add_part::<L, F, N>(&mut even, packed, &q, &scales, i);
            add_part::<L, F, N>(&mut odd, packed, &q, &scales, i + 1);
            i += 2;
        }
        if i < count {
            add_part::<L, F, N>(&mut even, packed, &q, &scales, i);
        }
        part += count;
    }
    for j in 0..N {
        let total = <L::Eight>::add(even[j], odd[j]);
        out[j * stride] = <L::Eight>::sum(if F::SIGNED { total } else { <L::Eight>::add(total, offsets[j]) });
    }
    N
}

/// Eight of a row's values, which are padded to whole groups of parts.
#[inline(always)]
fn eight<L: Lanes>(values: &[f32], at: usize) -> <L::Eight as Lanes>::V {
    let values: &[f32; PARTS] = values[at..].first_chunk().expect("padded");
    // SAFETY: they are eight.
    unsafe { <L::Eight>::load(values.as_ptr()) }
}

#[inline(always)]
fn times_of_row<L: Lanes>(of_row: &[f32; PARTS], of_x: <L::Eight as Lanes>::V) -> <L::Eight as Lanes>::V {
    // SAFETY: the array has eight values.
    let of_row = unsafe { <L::Eight>::load(of_row.as_ptr()) };
    <L::Eight>::multiply_add(of_row, of_x, <L::Eight>::splat(0.0))
}

/// Adds the products of one part to a total for each x.
#[inline(always)]
fn add_part<L: Lanes, F: Ints, const N: usize>(
    totals: &mut [<L::Eight as Lanes>::V; N],
    packed: &[u8],
    q: &[&[i8]; N],
    scales: &[[[f32; PARTS]; 2]; N],
    i: usize,
) {
    let u = F::u(packed, i);
    for j in 0..N {
        let q = &q[j][i * BLOCK..][..BLOCK];
        // SAFETY: both have 32 bytes from there on.
        let products = unsafe {
            match F::SIGNED {
                true => L::byte_products::<true>(u.as_ptr(), q.as_ptr()),
                false => L::byte_products::<false>(u.as_ptr(), q.as_ptr()),
            }
        };
        let s = &scales[j];
        let scale = if F::HALVES {
            let [a, b] = [s[0][i], s[1][i]];
            let both = [a, a, a, a, b, b, b, b];
            // SAFETY: the array has eight values.
            unsafe { <L::Eight>::load(both.as_ptr()) }
        } else {
            <L::Eight>::splat(s[0][i])
        };
        totals[j] = <L::Eight>::multiply_add(products, scale, totals[j]);
    }
}

/// The f16 at offset `at` of each of `count` blocks, `bytes` apart.
#[inline(always)]
fn halves<L: Lanes>(packed: &[u8], bytes: usize, at: usize, count: usize) -> [f32; PARTS] {
    let (mut bits, mut values) = ([[0u8; 2]; PARTS], [0.0f32; PARTS]);
    if count == PARTS {
        // The usual case, with one check of the length.
        let packed = &packed[..(PARTS - 1) * bytes + at + 2];
        for i in 0..PARTS {
            bits[i] = [packed[i * bytes + at], packed[i * bytes + at + 1]];
        }
    } else {
        for i in 0..count {
            bits[i] = [packed[i * bytes + at], packed[i * bytes + at + 1]];
        }
    }
    // SAFETY: both arrays have eight values, one per lane.
    unsafe { <L::Eight>::store(<L::Eight>::f16(bits.as_ptr().cast()), values.as_mut_ptr()) };
    values
}

#[inline(always)]
fn times(by: f32, mut values: [f32; PARTS]) -> [f32; PARTS] {
    for value in &mut values {
        *value *= by;
    }
    values
}

/// The low four bits of 16 bytes, then their high four bits.
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

/// Like `nibbles`, with a fifth (top) bit for each value from `high`.
#[inline(always)]
fn five_bits(qs: &[u8], high: &[u8]) -> [u8; BLOCK] {
    let mut u = nibbles(qs);
    let high: &[u8; 4] = high.first_chunk().expect("4 bytes");
    for i in 0..BLOCK {
        u[i] |= if high[i / 8] & (1 << (i % 8)) != 0 { 16 } else { 0 };
    }
    u
}

/// Implements `Ints` for a format with blocks of 32 values: name, bytes of a block, offset, integers u. The
/// scale is the f16 at the start of the block. The offset is a multiple of the scale (`offset`), an f16 at a
/// place in the block (`offset at`), or 0 (`signed`).
macro_rules! ints {
    ($name:ident, $bytes:literal, offset $times:literal, |$block:ident| $u:expr) => {
        ints!($name, $bytes, false, |packed, count, d| times($times, d), |$block| $u);
    };
    ($name:ident, $bytes:literal, offset at $at:literal, |$block:ident| $u:expr) => {
        ints!($name, $bytes, false, |packed, count, d| halves::<L>(packed, $bytes, $at, count), |$block| $u);
    };
    ($name:ident, $bytes:literal, signed, |$block:ident| $u:expr) => {
        ints!($name, $bytes, true, |packed, count, d| d, |$block| $u);
    };
    (
        $name:ident, $bytes:literal, $signed:literal,
        |$packed:ident, $count:ident, $d:ident| $m:expr, |$block:ident| $u:expr
    ) => {
        #[allow(non_camel_case_types)] // ggml's own names
        struct $name;
        impl Ints for $name {
            const SIGNED: bool = $signed;
            #[inline(always)]
            fn bytes(parts: usize) -> usize {
                parts * $bytes
            }
            #[inline(always)]
            fn scales<L: Lanes>($packed: &[u8], $count: usize) -> Scales {
                let $d = halves::<L>($packed, $bytes, 0, $count);
                Scales { s: [$d; 2], m: [$m; 2] }
            }
            #[inline(always)]
            fn u(packed: &[u8], part: usize) -> [u8; BLOCK] {
                let $block = &packed[part * $bytes..][..$bytes];
                $u
            }
        }
    };
}
ints!(Q8_0, 34, signed, |b| *b[2..].first_chunk().expect("32 bytes"));
ints!(Q4_0, 18, offset - 8.0, |b| nibbles(&b[2..]));
ints!(Q4_1, 20, offset at 2, |b| nibbles(&b[4..]));
ints!(Q5_0, 22, offset - 16.0, |b| five_bits(&b[6..], &b[2..]));
ints!(Q5_1, 24, offset at 2, |b| five_bits(&b[8..], &b[4..]));

/// The scales and offsets of a Q4_K or Q5_K block, which has them in twelve bytes, six bits each.
#[inline(always)]
fn k_scales<L: Lanes>(block: &[u8]) -> Scales {
    let words = block[4..16].as_chunks::<4>().0;
    let [low, middle, high] = [0, 1, 2].map(|i| u32::from_le_bytes(words[i]));
    let join = |first: u32, second: u32| (u64::from(second) << 32 | u64::from(first)).to_le_bytes();
    let scales = join(low & 0x3f3f_3f3f, (high & 0x0f0f_0f0f) | ((low >> 2) & 0x3030_3030));
    let offsets = join(middle & 0x3f3f_3f3f, ((high >> 4) & 0x0f0f_0f0f) | ((middle >> 2) & 0x3030_3030));
    let [d, dmin, ..] = halves::<L>(block, 2, 0, 2);
    let (mut s, mut m) = ([0.0; PARTS], [0.0; PARTS]);
    for i in 0..PARTS {
        s[i] = d * f32::from(scales[i]);
        m[i] = -dmin * f32::from(offsets[i]);
    }
    Scales { s: [s; 2], m: [m; 2] }
}

/// The low four bits of 32 bytes, or with `high` their high four bits.
#[inline(always)]
fn nibble(qs: &[u8], high: bool) -> [u8; BLOCK] {
    let mut u: [u8; BLOCK] = *qs.first_chunk().expect("32 bytes");
    for u in &mut u {
        *u = if high { *u >> 4 } else { *u & 15 };
    }
    u
}

/// Q4_K, or with `FIFTH` Q5_K, which has its fifth bits between scales and nibbles.
struct K<const FIFTH: bool>;
impl<const FIFTH: bool> Ints for K<FIFTH> {
    #[inline(always)]
    fn bytes(parts: usize) -> usize {
        parts / PARTS * if FIFTH { 176 } else { 144 }
    }
    #[inline(always)]
    fn scales<L: Lanes>(packed: &[u8], _: usize) -> Scales {
        k_scales::<L>(packed)
    }
    #[inline(always)]
    fn u(packed: &[u8], p: usize) -> [u8; BLOCK] {
        let nibbles_at = if FIFTH { 48 } else { 16 };
        let mut u = nibble(&packed[nibbles_at + p / 2 * 32..], p % 2 == 1);
        if FIFTH {
            let high: &[u8; BLOCK] = packed[16..].first_chunk().expect("32 bytes");
            for i in 0..BLOCK {
                u[i] |= ((high[i] >> p) & 1) << 4;
            }
        }
        u
    }
}

#[allow(non_camel_case_types)]
struct Q6_K;
impl Ints for Q6_K {
    const HALVES: bool = true;
    #[inline(always)]
    fn bytes(parts: usize) -> usize {
        parts / PARTS * 210
    }
    #[inline(always)]
    fn scales<L: Lanes>(packed: &[u8], _: usize) -> Scales {
        let [d, ..] = halves::<L>(packed, 2, 208, 1);
        let scales: &[u8; 16] = packed[192..].first_chunk().expect("16 bytes");
        let mut s = [[0.0; PARTS]; 2];
        for i in 0..PARTS {
            s[0][i] = d * f32::from(scales[2 * i] as i8);
            s[1][i] = d * f32::from(scales[2 * i + 1] as i8);
        }
        Scales { s, m: [times(-32.0, s[0]), times(-32.0, s[1])] }
    }
    #[inline(always)]
    fn u(packed: &[u8], p: usize) -> [u8; BLOCK] {
        let (n, quarter) = (p / 4, p % 4);
        let high: &[u8; BLOCK] = packed[128 + n * 32..].first_chunk().expect("32 bytes");
        let mut u = nibble(&packed[n * 64 + quarter % 2 * 32..], quarter >= 2);
        for i in 0..BLOCK {
            u[i] |= ((high[i] >> (2 * quarter)) & 3) << 4;
        }
        u
    }
}
