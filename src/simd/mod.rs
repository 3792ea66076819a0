//! What the kernels' fast CPU forms share: threads, and dot products with SIMD. These have eight lanes of f32,
//! whatever the machine, so that the order of every sum is the same on all of them; the form is chosen at run time,
//! for a generic build must run everywhere.

mod unpack;

use crate::weights::Format;
use half::{bf16, f16};
use std::sync::Mutex;

const LANES: usize = 8;

/// What a kernel's fast form has at hand.
pub struct Cpu {
    pub simd: Simd,
    pub threads: usize,
    /// The floating-point operations from which on a pass is worth sharing out.
    pub worth_threads: u64,
    scratch: Mutex<Vec<f32>>,
}

impl Cpu {
    pub fn new(threads: usize) -> Self {
        let worth_threads = if threads > 1 { 300_000 } else { u64::MAX };
        Self { simd: Simd::detect(), threads, worth_threads, scratch: Mutex::default() }
    }

    /// So many values, holding anything; to be given back.
    pub fn scratch(&self, len: usize) -> Vec<f32> {
        let mut values = std::mem::take(&mut *self.scratch.lock().expect("no thread panics here"));
        values.resize(len, 0.0);
        values
    }
    pub fn give_back(&self, values: Vec<f32>) {
        *self.scratch.lock().expect("no thread panics here") = values;
    }

    /// Into how large blocks to share out so many rows of a matrix.
    pub fn block_rows(&self, rows: usize, threads: bool) -> usize {
        if threads { (rows / (4 * self.threads)).clamp(24, 240).next_multiple_of(24) } else { rows.max(1) }
    }
}

/// The widest form of the dot products that this processor can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simd {
    /// What the compiler makes of plain arrays.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Simd {
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            return Self::Avx2;
        }
        Self::Portable
    }

    /// a · b
    pub fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            Self::Portable => dot::<Portable>(a, b),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` saw the features that avx2::dot is compiled for.
            Self::Avx2 => unsafe { avx2::dot(a, b) },
        }
    }

    /// `out[row][i] = packed[row] · x[i]` for rows of `columns` values, `row_bytes` apart. The rows of x are padded
    /// with zeros to a multiple of eight. Neither the number of rows nor that of x changes a sum.
    pub fn products(
        self,
        format: Format,
        packed: &[u8],
        row_bytes: usize,
        columns: usize,
        x: &[&[f32]],
        out: &mut [f32],
    ) {
        let rows = Rows { packed, row_bytes, columns };
        match self {
            Self::Portable => products::<Portable>(format, rows, x, out),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` saw the features that avx2::products is compiled for.
            Self::Avx2 => unsafe { avx2::products(format, rows, x, out) },
        }
    }
}

/// Eight f32 at once.
trait Lanes {
    type V: Copy;
    fn zero() -> Self::V;
    fn splat(value: f32) -> Self::V;
    /// Eight unsigned bytes.
    fn bytes(bytes: u64) -> Self::V;
    fn f32(values: &[f32; LANES]) -> Self::V;
    fn f16(bits: &[[u8; 2]; LANES]) -> Self::V;
    fn bf16(bits: &[[u8; 2]; LANES]) -> Self::V;
    /// a · b + c
    fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn values(v: Self::V) -> [f32; LANES];

    /// The sum of the lanes, in pairs.
    #[inline(always)]
    fn sum(v: Self::V) -> f32 {
        let [a, b, c, d, e, f, g, h] = Self::values(v);
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

/// How eight packed values of a format become lanes.
trait Packed {
    const BYTES: usize;
    fn lanes<L: Lanes>(eight: &[u8]) -> L::V;
}

struct F32;
struct F16;
struct BF16;

impl Packed for F32 {
    const BYTES: usize = 32;
    #[inline(always)]
    fn lanes<L: Lanes>(eight: &[u8]) -> L::V {
        let values = eight.as_chunks::<4>().0;
        L::f32(&std::array::from_fn(|i| f32::from_le_bytes(values[i])))
    }
}
impl Packed for F16 {
    const BYTES: usize = 16;
    #[inline(always)]
    fn lanes<L: Lanes>(eight: &[u8]) -> L::V {
        L::f16(eight.as_chunks::<2>().0.first_chunk().expect("eight values"))
    }
}
impl Packed for BF16 {
    const BYTES: usize = 16;
    #[inline(always)]
    fn lanes<L: Lanes>(eight: &[u8]) -> L::V {
        L::bf16(eight.as_chunks::<2>().0.first_chunk().expect("eight values"))
    }
}

#[inline(always)]
fn dot<L: Lanes>(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut total = L::zero();
    for (a, b) in a.iter().zip(b) {
        total = L::multiply_add(L::f32(a), L::f32(b), total);
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    L::sum(total) + rest
}

/// Packed rows of a matrix.
#[derive(Clone, Copy)]
struct Rows<'a> {
    packed: &'a [u8],
    row_bytes: usize,
    columns: usize,
}

#[inline(always)]
fn products<L: Lanes>(format: Format, rows: Rows, x: &[&[f32]], out: &mut [f32]) {
    match format {
        Format::F32 => products_of::<L, F32>(rows, x, out),
        Format::F16 => products_of::<L, F16>(rows, x, out),
        Format::BF16 => products_of::<L, BF16>(rows, x, out),
        _ => products_of_blocks::<L>(format, rows, x, out),
    }
}

/// Rows in blocks are unpacked a few at a time, and then are rows of f32: the sums are those of the format F32.
#[inline(always)]
fn products_of_blocks<L: Lanes>(format: Format, rows: Rows, x: &[&[f32]], out: &mut [f32]) {
    const FEW: usize = 8;
    let mut values = vec![0.0f32; FEW * rows.columns];
    for (some, out) in out.chunks_mut(FEW * x.len()).enumerate() {
        let count = out.len() / x.len();
        for (i, values) in values.chunks_mut(rows.columns).take(count).enumerate() {
            let packed = rows.packed[(some * FEW + i) * rows.row_bytes..].chunks_exact(format.block_bytes());
            for (block, values) in packed.zip(values.chunks_mut(format.block_values())) {
                unpack::unpack::<L>(format, block, values);
            }
        }
        let packed = bytemuck::cast_slice(&values);
        products_of::<L, F32>(Rows { packed, row_bytes: rows.columns * 4, columns: rows.columns }, x, out);
    }
}

/// Tiles of rows by x that fill the registers: three by four, or eight by one.
#[inline(always)]
fn products_of<L: Lanes, P: Packed>(rows: Rows, x: &[&[f32]], out: &mut [f32]) {
    let count = out.len() / x.len();
    let mut row = 0;
    while row < count {
        row += match (x.len() < 4, count - row) {
            (true, 8..) => strip::<L, P, 8>(rows, row, x, out),
            (false, 3..) => strip::<L, P, 3>(rows, row, x, out),
            _ => strip::<L, P, 1>(rows, row, x, out),
        };
    }
}

/// R rows by all x; returns R.
#[inline(always)]
fn strip<L: Lanes, P: Packed, const R: usize>(
    rows: Rows,
    row: usize,
    x: &[&[f32]],
    out: &mut [f32],
) -> usize {
    let (fours, rest) = x.as_chunks::<4>();
    for (i, four) in fours.iter().enumerate() {
        tile::<L, P, R, 4>(rows, row, four, &mut out[row * x.len() + 4 * i..], x.len());
    }
    for (i, one) in rest.iter().enumerate() {
        tile::<L, P, R, 1>(rows, row, &[one], &mut out[row * x.len() + 4 * fours.len() + i..], x.len());
    }
    R
}

/// R rows by T of x, to out[row · stride + i].
#[inline(always)]
fn tile<L: Lanes, P: Packed, const R: usize, const T: usize>(
    rows: Rows,
    first: usize,
    x: &[&[f32]; T],
    out: &mut [f32],
    stride: usize,
) {
    let eights = rows.columns / LANES;
    let packed: [&[u8]; R] = std::array::from_fn(|r| &rows.packed[(first + r) * rows.row_bytes..]);
    let whole: [&[u8]; R] = std::array::from_fn(|r| &packed[r][..eights * P::BYTES]);
    let x: [&[[f32; LANES]]; T] = std::array::from_fn(|t| x[t].as_chunks::<LANES>().0);
    let mut total = [[L::zero(); T]; R];
    for i in 0..eights {
        // Loops, not closures: what is not inlined here is compiled without the lanes' target features.
        let mut w = [L::zero(); R];
        for r in 0..R {
            w[r] = P::lanes::<L>(&whole[r][i * P::BYTES..][..P::BYTES]);
        }
        for t in 0..T {
            let v = L::f32(&x[t][i]);
            for r in 0..R {
                total[r][t] = L::multiply_add(w[r], v, total[r][t]);
            }
        }
    }
    let rest = rows.columns % LANES;
    if rest > 0 {
        for r in 0..R {
            // The row may end here: what is left of it, and zeros.
            let bytes = rest * P::BYTES / LANES;
            let mut eight = [0; 32];
            eight[..bytes].copy_from_slice(&packed[r][eights * P::BYTES..][..bytes]);
            let w = P::lanes::<L>(&eight[..P::BYTES]);
            for t in 0..T {
                total[r][t] = L::multiply_add(w, L::f32(&x[t][eights]), total[r][t]);
            }
        }
    }
    for r in 0..R {
        for t in 0..T {
            out[r * stride + t] = L::sum(total[r][t]);
        }
    }
}

struct Portable;

impl Lanes for Portable {
    type V = [f32; LANES];
    #[inline(always)]
    fn zero() -> Self::V {
        [0.0; LANES]
    }
    #[inline(always)]
    fn splat(value: f32) -> Self::V {
        [value; LANES]
    }
    #[inline(always)]
    fn bytes(bytes: u64) -> Self::V {
        bytes.to_le_bytes().map(f32::from)
    }
    #[inline(always)]
    fn f32(values: &[f32; LANES]) -> Self::V {
        *values
    }
    #[inline(always)]
    fn f16(bits: &[[u8; 2]; LANES]) -> Self::V {
        bits.map(|b| f16::from_le_bytes(b).to_f32())
    }
    #[inline(always)]
    fn bf16(bits: &[[u8; 2]; LANES]) -> Self::V {
        bits.map(|b| bf16::from_le_bytes(b).to_f32())
    }
    #[inline(always)]
    fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Not mul_add: where the processor lacks it that is a call to a library.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn values(v: Self::V) -> [f32; LANES] {
        v
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Format, LANES, Lanes, Rows};
    use std::arch::x86_64::*;

    /// # Safety
    /// The processor must have avx2, fma and f16c.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn dot(a: &[f32], b: &[f32]) -> f32 {
        super::dot::<Avx2>(a, b)
    }

    /// # Safety
    /// The processor must have avx2, fma and f16c.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn products(format: Format, rows: Rows, x: &[&[f32]], out: &mut [f32]) {
        super::products::<Avx2>(format, rows, x, out)
    }

    /// Only named inside the two functions above, so that the features are there.
    struct Avx2;

    // SAFETY (all of these): inlined into functions compiled for avx2, fma and f16c; the loads are unaligned ones,
    // of as many bytes as the arrays have.
    impl Lanes for Avx2 {
        type V = __m256;
        #[inline(always)]
        fn zero() -> __m256 {
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        fn splat(value: f32) -> __m256 {
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        fn bytes(bytes: u64) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes as i64))) }
        }
        #[inline(always)]
        fn f32(values: &[f32; LANES]) -> __m256 {
            unsafe { _mm256_loadu_ps(values.as_ptr()) }
        }
        #[inline(always)]
        fn f16(bits: &[[u8; 2]; LANES]) -> __m256 {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(bits.as_ptr().cast())) }
        }
        #[inline(always)]
        fn bf16(bits: &[[u8; 2]; LANES]) -> __m256 {
            unsafe {
                let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(bits.as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
            }
        }
        #[inline(always)]
        fn multiply_add(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn values(v: __m256) -> [f32; LANES] {
            let mut values = [0.0; LANES];
            unsafe { _mm256_storeu_ps(values.as_mut_ptr(), v) };
            values
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every form and format, odd sizes, one and many rows: equal to f64 within rounding, and one row of x at a
    /// time gives the same bits as all at once.
    #[test]
    fn products_are_right_and_do_not_depend_on_company() {
        let value = |i: usize| ((i * 7919 % 1009) as f32 - 504.0) / 300.0;
        for simd in [Simd::Portable, Simd::detect()] {
            for (format, columns, rows, count) in [Format::F32, Format::F16, Format::BF16]
                .into_iter()
                .flat_map(|f| [(f, 1, 1, 1), (f, 7, 5, 3), (f, 40, 11, 9), (f, 61, 9, 4)])
            {
                let stored: Vec<f32> = (0..rows * columns).map(value).collect();
                let row_bytes = format.row_bytes(columns);
                let mut packed = vec![0; rows * row_bytes];
                format.pack(&stored, &mut packed);
                let x: Vec<Vec<f32>> = (0..count)
                    .map(|t| {
                        (0..columns.next_multiple_of(8))
                            .map(|i| if i < columns { value(i * 31 + t) } else { 0.0 })
                            .collect()
                    })
                    .collect();
                let x: Vec<&[f32]> = x.iter().map(|x| &x[..]).collect();
                let mut out = vec![0.0; rows * count];
                simd.products(format, &packed, row_bytes, columns, &x, &mut out);
                for (t, x) in x.iter().enumerate() {
                    let mut alone = vec![0.0; rows];
                    simd.products(format, &packed, row_bytes, columns, &[x], &mut alone);
                    for row in 0..rows {
                        let mut w = vec![0.0; columns];
                        format.unpack(&packed[row * row_bytes..], &mut w);
                        let exact: f64 = w.iter().zip(*x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                        let got = out[row * count + t];
                        assert!(
                            (f64::from(got) - exact).abs() < 1e-4,
                            "{simd:?} {format:?}: {got} for {exact}"
                        );
                        assert_eq!(
                            got.to_bits(),
                            alone[row].to_bits(),
                            "{simd:?} {format:?} {columns} {count}"
                        );
                    }
                }
            }
        }
    }
}
