//! Products of quantised rows with activations that are rounded to eight bits: `--math fast`. Within a block
//! the products are summed as integers, and the scales multiply the sum once. As in llama.cpp's CPU backend,
//! except that scales are f32.
//!
//! A value of the formats here is s · u + m, where u is a small integer, and s and m are the same for 16 or
//! 32 values. Therefore Σ (s u + m) x = s Σ u x + m Σ x.

use super::{
    highest,
    lanes::{Job, Lanes, Pair},
    products::PackedRows,
};
use crate::weights::Format;

/// Values in a block of rounded activations, which share a scale.
pub const BLOCK: usize = 32;

/// A row of activations x, rounded in blocks: x ≈ d · q. Zeros follow up to a whole group.
#[derive(Clone)]
pub struct Rounded {
    columns: usize,
    groups: Vec<Group>,
}

/// [`PARTS`] blocks of a rounded row, stored together because they are read together.
#[derive(Clone)]
struct Group {
    q: [[i8; BLOCK]; PARTS],
    /// The scale d of each block.
    d: [f32; PARTS],
    /// d Σ q of each block: [0] over the block, [1] over its first half, [2] over its second half.
    sums: [[f32; PARTS]; 3],
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
        let zeros = Group { q: [[0; BLOCK]; PARTS], d: [0.0; PARTS], sums: [[0.0; PARTS]; 3] };
        let mut groups = vec![zeros; blocks.len().div_ceil(PARTS)];
        for (block, x) in blocks.iter().enumerate() {
            let (group, block) = (&mut groups[block / PARTS], block % PARTS);
            let q = &mut group.q[block];
            let mut tops = [0.0f32; 8];
            for eight in x.as_chunks::<8>().0 {
                for i in 0..8 {
                    let size = eight[i].abs();
                    tops[i] = if size > tops[i] { size } else { tops[i] };
                }
            }
            let d = highest(&tops) / 127.0;
            let by = if d > 0.0 { 1.0 / d } else { 0.0 };
            // 1.5 · 2²³: adding it to a small number leaves the nearest integer in the low bits.
            const ROUND: f32 = 12_582_912.0;
            for i in 0..BLOCK {
                q[i] = (x[i] * by + ROUND).to_bits() as i8;
            }
            let mut fours = [0.0f32; 8];
            // SAFETY: 32 bytes each, and eight sums.
            unsafe {
                let products = L::byte_products::<false>([1; BLOCK].as_ptr(), q.as_ptr());
                <L::Eight>::store(products, fours.as_mut_ptr());
            }
            let halves =
                [fours[0] + fours[1] + fours[2] + fours[3], fours[4] + fours[5] + fours[6] + fours[7]];
            group.d[block] = d;
            for (sums, sum) in group.sums.iter_mut().zip([halves[0] + halves[1], halves[0], halves[1]]) {
                sums[block] = d * sum;
            }
        }
        Rounded { columns: self.0.len(), groups }
    }
}

impl Rounded {
    /// The values that the rounded row represents.
    pub fn values(&self) -> Vec<f32> {
        let blocks = self.groups.iter().flat_map(|group| group.q.iter().zip(&group.d));
        let values = blocks.flat_map(|(q, d)| q.iter().map(move |q| d * f32::from(*q)));
        values.take(self.columns).collect()
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
        assert!(x.iter().all(|x| x.columns == rows.columns), "a block for each of the rows'");
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

/// `out[i · stride] = row · x[i]` for the first N rows of x. Returns N.
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
    let mut sums = Sums::<L, N> { parts: [<L::Pair>::splat(0.0); N], offsets: [zero; N] };
    let (whole, rest) = (parts / PARTS, parts % PARTS);
    let mut of_x = [&[][..]; N];
    for j in 0..N {
        of_x[j] = &x[j].groups[..parts.div_ceil(PARTS)];
    }
    let mut groups = [&x[0].groups[0]; N];
    for g in 0..whole {
        for j in 0..N {
            groups[j] = &of_x[j][g];
        }
        let packed = &packed[F::bytes(g * PARTS)..F::bytes((g + 1) * PARTS)];
        add_group::<L, F, N>(&mut sums, packed, &groups, PARTS);
    }
    if rest > 0 {
        for j in 0..N {
            groups[j] = &of_x[j][whole];
        }
        add_group::<L, F, N>(&mut sums, &packed[F::bytes(whole * PARTS)..], &groups, rest);
    }
    for j in 0..N {
        let total = <L::Pair>::sum(sums.parts[j]);
        let total = if F::SIGNED { total } else { <L::Eight>::add(total, sums.offsets[j]) };
        out[j * stride] = <L::Eight>::sum(total);
    }
    N
}

/// The partial sums of N products. `parts` holds Σ s d u q, in one vector for even and one for odd parts.
/// `offsets` holds Σ m x, in one lane for each part of a group.
struct Sums<L: Lanes, const N: usize> {
    parts: [<L::Pair as Pair>::V; N],
    offsets: [<L::Eight as Lanes>::V; N],
}

/// Adds the products of the first `count` parts of a group.
#[inline(always)]
fn add_group<L: Lanes, F: Ints, const N: usize>(
    sums: &mut Sums<L, N>,
    packed: &[u8],
    x: &[&Group; N],
    count: usize,
) {
    let of_row = F::scales::<L>(packed, count);
    // The row's scales times those of each x: one for each part in `scales`, or, if the halves of a part have
    // different scales, one for each half in `of_halves`. Those of missing parts are zero.
    let (mut scales, mut of_halves) = ([[0.0; PARTS]; N], [[0.0; 2 * PARTS]; N]);
    for j in 0..N {
        let Group { d, sums: [whole, first, second], .. } = x[j];
        let offsets = sums.offsets[j];
        scales[j] = products_of::<L>(&of_row.s[0], d);
        if F::HALVES {
            let of_second = products_of::<L>(&of_row.s[1], d);
            for i in 0..PARTS {
                of_halves[j][2 * i] = scales[j][i];
                of_halves[j][2 * i + 1] = of_second[i];
            }
            let (a, b) = (times_of::<L>(&of_row.m[0], first), times_of::<L>(&of_row.m[1], second));
            sums.offsets[j] = <L::Eight>::add(offsets, <L::Eight>::add(a, b));
        } else if !F::SIGNED {
            sums.offsets[j] = <L::Eight>::add(offsets, times_of::<L>(&of_row.m[0], whole));
        }
    }
    // The second half of a last pair may be missing; then its integers and its scales are zero.
    for i in (0..count).step_by(2) {
        let mut u = [[0; BLOCK]; 2];
        u[0] = F::u(packed, i);
        if i + 1 < count {
            u[1] = F::u(packed, i + 1);
        }
        for j in 0..N {
            let (u, q) = (u.as_ptr().cast(), x[j].q[i..i + 2].as_ptr().cast());
            // SAFETY: two parts of 32 bytes each, and two or four scales.
            let (products, scale) = unsafe {
                let products = match F::SIGNED {
                    true => <L::Pair>::byte_products::<true>(u, q),
                    false => <L::Pair>::byte_products::<false>(u, q),
                };
                let scale = match F::HALVES {
                    true => <L::Pair>::spread::<4>(of_halves[j][2 * i..2 * i + 4].as_ptr()),
                    false => <L::Pair>::spread::<8>(scales[j][i..i + 2].as_ptr()),
                };
                (products, scale)
            };
            sums.parts[j] = <L::Pair>::multiply_add(products, scale, sums.parts[j]);
        }
    }
}

/// The products of eight values with eight others.
#[inline(always)]
fn times_of<L: Lanes>(a: &[f32; PARTS], b: &[f32; PARTS]) -> <L::Eight as Lanes>::V {
    // SAFETY: the arrays have eight values.
    let (a, b) = unsafe { (<L::Eight>::load(a.as_ptr()), <L::Eight>::load(b.as_ptr())) };
    <L::Eight>::multiply_add(a, b, <L::Eight>::splat(0.0))
}

/// The same as an array.
#[inline(always)]
fn products_of<L: Lanes>(a: &[f32; PARTS], b: &[f32; PARTS]) -> [f32; PARTS] {
    let mut products = [0.0; PARTS];
    // SAFETY: the array has eight values.
    unsafe { <L::Eight>::store(times_of::<L>(a, b), products.as_mut_ptr()) };
    products
}

/// The f16 at offset `at` of each of `count` blocks, `bytes` apart.
#[inline(always)]
fn halves<L: Lanes>(packed: &[u8], bytes: usize, at: usize, count: usize) -> [f32; PARTS] {
    let (mut bits, mut values) = ([0u16; PARTS], [0.0f32; PARTS]);
    let packed = &packed[..(count - 1) * bytes + at + 2];
    for i in 0..count {
        bits[i] = u16::from_ne_bytes([packed[i * bytes + at], packed[i * bytes + at + 1]]);
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
