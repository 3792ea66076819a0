//! Products of packed rows with vectors of f32, computed in tiles that fill the registers.

use super::{
    lanes::{Job, Lanes},
    unpack,
};
use crate::weights::Format;
use half::{bf16, f16};

/// Packed rows of a matrix, `[count, columns]`.
#[derive(Clone, Copy)]
pub struct PackedRows<'a> {
    pub format: Format,
    pub packed: &'a [u8],
    /// Bytes from one row to the next.
    pub row_bytes: usize,
    pub columns: usize,
    pub count: usize,
}

impl PackedRows<'_> {
    /// Asserts that all rows lie within `packed`.
    pub fn check(&self) {
        let last = self.count.saturating_sub(1) * self.row_bytes;
        assert!(
            self.count == 0 || last + self.format.row_bytes(self.columns) <= self.packed.len(),
            "whole rows"
        );
    }
}

/// `out[i · stride + row] = rows[row] · x[i]`. The sums do not depend on the number of rows or of x.
pub struct Products<'a> {
    pub rows: PackedRows<'a>,
    /// Each has at least as many values as a row.
    pub x: &'a [&'a [f32]],
    pub out: &'a mut [f32],
    pub stride: usize,
}

impl Job for Products<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { rows, x, out, stride } = self;
        rows.check();
        if x.is_empty() || rows.count == 0 {
            return;
        }
        assert!(x.iter().all(|x| x.len() >= rows.columns), "a value for each column");
        assert!((x.len() - 1) * stride + rows.count <= out.len(), "room for the products");
        match rows.format {
            Format::F32 => products::<L, F32>(rows, x, out, stride),
            Format::F16 => products::<L, F16>(rows, x, out, stride),
            Format::BF16 => products::<L, BF16>(rows, x, out, stride),
            _ => products_of_blocks::<L>(rows, x, out, stride),
        }
    }
}

/// A format without blocks: how to load `N` packed values into lanes, and how to unpack one.
pub(super) trait Packed {
    const BYTES: usize;
    /// # Safety
    /// Reads `N` values.
    unsafe fn lanes<L: Lanes>(packed: *const u8) -> L::V;
    /// The value that these bytes begin with.
    fn value(packed: &[u8]) -> f32;
}

pub(super) struct F32;
pub(super) struct F16;
struct BF16;

/// The N bytes that some begin with.
fn first_bytes<const N: usize>(packed: &[u8]) -> [u8; N] {
    *packed.first_chunk().expect("a whole value")
}

impl Packed for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn lanes<L: Lanes>(packed: *const u8) -> L::V {
        unsafe { L::load(packed.cast()) }
    }
    #[inline(always)]
    fn value(packed: &[u8]) -> f32 {
        f32::from_le_bytes(first_bytes(packed))
    }
}
impl Packed for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn lanes<L: Lanes>(packed: *const u8) -> L::V {
        unsafe { L::f16(packed) }
    }
    #[inline(always)]
    fn value(packed: &[u8]) -> f32 {
        f16::from_le_bytes(first_bytes(packed)).to_f32()
    }
}
impl Packed for BF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn lanes<L: Lanes>(packed: *const u8) -> L::V {
        unsafe { L::bf16(packed) }
    }
    #[inline(always)]
    fn value(packed: &[u8]) -> f32 {
        bf16::from_le_bytes(first_bytes(packed)).to_f32()
    }
}

/// Products of rows in block formats: unpacks some rows at a time to f32, and multiplies those as rows of the
/// format F32.
#[inline(always)]
fn products_of_blocks<L: Lanes>(rows: PackedRows, x: &[&[f32]], out: &mut [f32], stride: usize) {
    const SOME: usize = 24;
    let (block_bytes, block_values) = (rows.format.block_bytes(), rows.format.block_values());
    let padded = rows.columns.next_multiple_of(block_values);
    let mut values = vec![0.0f32; SOME.min(rows.count) * padded];
    for first in (0..rows.count).step_by(SOME) {
        let count = SOME.min(rows.count - first);
        for (row, values) in values.chunks_mut(padded).take(count).enumerate() {
            let packed = rows.packed[(first + row) * rows.row_bytes..].chunks_exact(block_bytes);
            for (block, values) in packed.zip(values.chunks_mut(block_values)) {
                unpack::unpack::<L::Eight>(rows.format, block, values);
            }
        }
        let packed = bytemuck::cast_slice(&values);
        let some = PackedRows { format: Format::F32, packed, row_bytes: padded * 4, count, ..rows };
        products::<L, F32>(some, x, &mut out[first..], stride);
    }
}

/// Divides the products into tiles of rows by x: of 8 by 1 if there are one or two x, else of as many as the
/// registers hold.
#[inline(always)]
fn products<L: Lanes, P: Packed>(rows: PackedRows, x: &[&[f32]], out: &mut [f32], stride: usize) {
    if x.len() < 3 {
        for (i, one) in x.iter().enumerate() {
            strip::<L, P, 8, 1>(rows, &[one], &mut out[i * stride..], stride);
        }
        return;
    }
    let mut done = 0;
    if L::MANY_REGISTERS {
        let (sixes, _) = x.as_chunks::<6>();
        for six in sixes {
            strip::<L, P, 4, 6>(rows, six, &mut out[done * stride..], stride);
            done += 6;
        }
    }
    let (fours, _) = x[done..].as_chunks::<4>();
    for four in fours {
        strip::<L, P, 3, 4>(rows, four, &mut out[done * stride..], stride);
        done += 4;
    }
    for one in &x[done..] {
        strip::<L, P, 8, 1>(rows, &[one], &mut out[done * stride..], stride);
        done += 1;
    }
}

/// The products of all rows, R at a time, with T vectors x, which stay in the L1 cache meanwhile.
#[inline(always)]
fn strip<L: Lanes, P: Packed, const R: usize, const T: usize>(
    rows: PackedRows,
    x: &[&[f32]; T],
    out: &mut [f32],
    stride: usize,
) {
    let mut row = 0;
    while row + R <= rows.count {
        tile::<L, P, R, T>(rows, row, x, out, stride);
        row += R;
    }
    while row < rows.count {
        tile::<L, P, 1, T>(rows, row, x, out, stride);
        row += 1;
    }
}

/// The most lanes that a vector has.
const MAX_LANES: usize = 16;

/// The products of R rows from `first` on with T vectors x.
#[inline(always)]
fn tile<L: Lanes, P: Packed, const R: usize, const T: usize>(
    rows: PackedRows,
    first: usize,
    x: &[&[f32]; T],
    out: &mut [f32],
    stride: usize,
) {
    let whole = rows.columns / L::N;
    let mut w = [std::ptr::null(); R];
    for r in 0..R {
        w[r] = rows.packed[(first + r) * rows.row_bytes..].as_ptr();
    }
    let mut total = [[L::splat(0.0); T]; R];
    for i in 0..whole {
        let mut lanes = [L::splat(0.0); R];
        for r in 0..R {
            // SAFETY: within the row, as checked by `PackedRows::check`.
            lanes[r] = unsafe { P::lanes::<L>(w[r].add(i * L::N * P::BYTES)) };
            if T == 1 {
                // With one x, memory is the bottleneck: prefetch the rows of the next tile, which follow
                // these.
                L::prefetch(w[r].wrapping_add(R * rows.row_bytes + i * L::N * P::BYTES));
            }
        }
        for t in 0..T {
            // SAFETY: x has at least as many values as a row has columns.
            let v = unsafe { L::load(x[t].as_ptr().add(i * L::N)) };
            for r in 0..R {
                total[r][t] = L::multiply_add(lanes[r], v, total[r][t]);
            }
        }
    }
    // The totals are read here once, at indices that the compiler knows. Else it would keep them in memory,
    // and write them there in each turn of the loop above.
    let mut sums = [[[0.0f32; MAX_LANES]; T]; R];
    for r in 0..R {
        for t in 0..T {
            // SAFETY: there is room for N values.
            unsafe { L::store(total[r][t], sums[r][t].as_mut_ptr()) };
        }
    }
    let rest = rows.columns % L::N;
    if rest > 0 {
        // Whole vectors would read past the end of a row: copy the rest, and pad with zeros.
        let (mut packed, mut values) = ([0u8; 4 * MAX_LANES], [0.0f32; MAX_LANES]);
        for t in 0..T {
            values[..rest].copy_from_slice(&x[t][whole * L::N..][..rest]);
            for r in 0..R {
                let at = (first + r) * rows.row_bytes + whole * L::N * P::BYTES;
                packed[..rest * P::BYTES].copy_from_slice(&rows.packed[at..][..rest * P::BYTES]);
                let sum = sums[r][t].as_mut_ptr();
                // SAFETY: the arrays hold at least N values.
                unsafe {
                    let (w, v) = (P::lanes::<L>(packed.as_ptr()), L::load(values.as_ptr()));
                    L::store(L::multiply_add(w, v, L::load(sum)), sum);
                }
            }
        }
    }
    for t in 0..T {
        for r in 0..R {
            // SAFETY: there are N values.
            out[t * stride + first + r] = L::sum(unsafe { L::load(sums[r][t].as_ptr()) });
        }
    }
}

/// The dot product a · b.
pub struct Dot<'a>(pub &'a [f32], pub &'a [f32]);

impl Job for Dot<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<L: Lanes>(self) -> f32 {
        let Self(a, b) = self;
        let whole = a.len().min(b.len()) / L::N * L::N;
        let mut total = L::splat(0.0);
        let mut i = 0;
        while i < whole {
            // SAFETY: `i` + N is at most the length of both.
            unsafe { total = L::multiply_add(L::load(a.as_ptr().add(i)), L::load(b.as_ptr().add(i)), total) };
            i += L::N;
        }
        let mut sum = L::sum(total);
        for (a, b) in a[whole..].iter().zip(&b[whole..]) {
            sum += a * b;
        }
        sum
    }
}

/// `out[i] += Σ weights[i][row] · rows[row]`, summed in the order of the rows, which are f32 or f16: the
/// weighted sums of values in attention.
pub struct Mix<'a, 'b> {
    pub rows: PackedRows<'a>,
    /// The weights of `out[0]`, then those of `out[1]`, …
    pub weights: &'a [f32],
    /// Values from the weights of one output to those of the next.
    pub weights_stride: usize,
    /// As wide as the rows.
    pub out: &'a mut [&'b mut [f32]],
}

impl Job for Mix<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { rows, weights, weights_stride, out } = self;
        rows.check();
        assert!(out.iter().all(|out| out.len() == rows.columns), "as wide as the rows");
        let last = out.len().saturating_sub(1) * weights_stride;
        assert!(out.is_empty() || last + rows.count <= weights.len(), "a weight for each row");
        match rows.format {
            Format::F32 => mix_all::<L, F32>(rows, weights, weights_stride, out),
            Format::F16 if out.len() < 8 => mix_all::<L, F16>(rows, weights, weights_stride, out),
            // Rows that many read are unpacked once.
            Format::F16 => {
                let values = unpacked::<L, F16>(rows);
                let (packed, row_bytes) = (bytemuck::cast_slice(&values), 4 * rows.columns);
                let rows = PackedRows { format: Format::F32, packed, row_bytes, ..rows };
                mix_all::<L, F32>(rows, weights, weights_stride, out);
            }
            other => panic!("rows of {} are not mixed", other.name()),
        }
    }
}

/// The values of all rows, one after the other.
#[inline(always)]
fn unpacked<L: Lanes, P: Packed>(rows: PackedRows) -> Vec<f32> {
    let mut values = vec![0.0; rows.count * rows.columns];
    for (row, values) in values.chunks_exact_mut(rows.columns).enumerate() {
        unpack_row::<L, P>(&rows.packed[row * rows.row_bytes..], values);
    }
    values
}

/// As many values of a packed row as there is room for.
#[inline(always)]
pub(super) fn unpack_row<L: Lanes, P: Packed>(packed: &[u8], values: &mut [f32]) {
    assert!(values.len() * P::BYTES <= packed.len(), "a whole row");
    let whole = values.len() / L::N * L::N;
    for at in (0..whole).step_by(L::N) {
        // SAFETY: both hold N values from there on.
        unsafe {
            let lanes = P::lanes::<L>(packed.as_ptr().add(at * P::BYTES));
            L::store(lanes, values.as_mut_ptr().add(at));
        }
    }
    for at in whole..values.len() {
        values[at] = P::value(&packed[at * P::BYTES..]);
    }
}

#[inline(always)]
fn mix_all<L: Lanes, P: Packed>(
    rows: PackedRows,
    weights: &[f32],
    weights_stride: usize,
    out: &mut [&mut [f32]],
) {
    let mut first = 0;
    while first < out.len() {
        let weights = &weights[first * weights_stride..];
        let some = &mut out[first..];
        first += if some.len() >= 4 {
            mix_some::<L, P, 4>(rows, weights, weights_stride, some)
        } else {
            mix_some::<L, P, 1>(rows, weights, weights_stride, some)
        };
    }
}

/// [`Mix`] for the first X of `out`; returns X. Takes four vectors of a row at a time, or two if there are
/// few registers, so that the sums stay in registers over all rows.
#[inline(always)]
fn mix_some<L: Lanes, P: Packed, const X: usize>(
    rows: PackedRows,
    weights: &[f32],
    weights_stride: usize,
    out: &mut [&mut [f32]],
) -> usize {
    let width = rows.columns;
    let mut to = [std::ptr::null_mut(); X];
    for i in 0..X {
        to[i] = out[i].as_mut_ptr();
    }
    let mut at = 0;
    // SAFETY (all): within `out` and `rows`, as `Mix` has checked.
    while L::MANY_REGISTERS && at + 4 * L::N <= width {
        unsafe { mix::<L, P, 4, X>(rows, weights, weights_stride, to, at) };
        at += 4 * L::N;
    }
    while at + 2 * L::N <= width {
        unsafe { mix::<L, P, 2, X>(rows, weights, weights_stride, to, at) };
        at += 2 * L::N;
    }
    while at + L::N <= width {
        unsafe { mix::<L, P, 1, X>(rows, weights, weights_stride, to, at) };
        at += L::N;
    }
    for i in 0..X {
        for row in 0..rows.count {
            for column in at..width {
                let value = P::value(&rows.packed[row * rows.row_bytes + column * P::BYTES..]);
                out[i][column] += weights[i * weights_stride + row] * value;
            }
        }
    }
    X
}

/// Adds the weighted sum of all rows to C vectors of each of X outputs, from column `at` on.
///
/// # Safety
/// Each row and each output has at least C · N values there.
#[inline(always)]
unsafe fn mix<L: Lanes, P: Packed, const C: usize, const X: usize>(
    rows: PackedRows,
    weights: &[f32],
    weights_stride: usize,
    out: [*mut f32; X],
    at: usize,
) {
    let packed = rows.packed.as_ptr();
    let mut total = [[L::splat(0.0); C]; X];
    for i in 0..X {
        for c in 0..C {
            total[i][c] = unsafe { L::load(out[i].add(at + c * L::N)) };
        }
    }
    for row in 0..rows.count {
        let mut values = [L::splat(0.0); C];
        for c in 0..C {
            let from = row * rows.row_bytes + (at + c * L::N) * P::BYTES;
            values[c] = unsafe { P::lanes::<L>(packed.add(from)) };
        }
        for i in 0..X {
            let weight = L::splat(weights[i * weights_stride + row]);
            for c in 0..C {
                total[i][c] = L::multiply_add(weight, values[c], total[i][c]);
            }
        }
    }
    for i in 0..X {
        for c in 0..C {
            unsafe { L::store(total[i][c], out[i].add(at + c * L::N)) };
        }
    }
}
