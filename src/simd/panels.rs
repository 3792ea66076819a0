//! Products of rows with many vectors x, by panels: N rows are transposed into a panel with one row
//! per lane, and each x is multiplied with the whole panel. The transposition pays off over all of x, and no
//! sum over lanes is needed. Prefill uses it for the products of keys and queries.

use super::{
    PackedRows,
    lanes::{Job, Lanes},
    products::{F16, F32, Packed, unpack_row},
};
use crate::weights::Format;

/// `out[i · stride + row] = rows[row] · x[i]`, for rows of f32 or f16. The sums do not depend on the number
/// of rows or of x.
pub struct KeyProducts<'a> {
    pub rows: PackedRows<'a>,
    /// Each as long as a row.
    pub x: &'a [&'a [f32]],
    pub out: &'a mut [f32],
    pub stride: usize,
}

impl Job for KeyProducts<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { rows, x, out, stride } = self;
        rows.check();
        assert!(x.iter().all(|x| x.len() == rows.columns), "as long as the rows");
        match rows.format {
            Format::F32 => by_panels::<L, F32>(rows, x, out, stride),
            Format::F16 => by_panels::<L, F16>(rows, x, out, stride),
            other => panic!("rows of {} are not transposed", other.name()),
        }
    }
}

#[inline(always)]
fn by_panels<L: Lanes, P: Packed>(rows: PackedRows, x: &[&[f32]], out: &mut [f32], stride: usize) {
    let (columns, count) = (rows.columns, rows.count);
    // [column][lane]
    let (mut row, mut panel) = (vec![0.0; columns], vec![0.0; columns * L::N]);
    let mut first = 0;
    while first < count {
        let lanes = L::N.min(count - first);
        for lane in 0..lanes {
            unpack_row::<L, P>(&rows.packed[(first + lane) * rows.row_bytes..], &mut row);
            for column in 0..columns {
                panel[column * L::N + lane] = row[column];
            }
        }
        let mut at = 0;
        while at < x.len() {
            let left = &x[at..];
            let out = &mut out[at * stride + first..];
            at += if L::MANY_REGISTERS && left.len() >= 8 {
                put::<L, 8>(of_panel::<L, 8>(&panel, left), out, stride, lanes)
            } else if left.len() >= 4 {
                put::<L, 4>(of_panel::<L, 4>(&panel, left), out, stride, lanes)
            } else {
                put::<L, 1>(of_panel::<L, 1>(&panel, left), out, stride, lanes)
            };
        }
        first += lanes;
    }
}

/// The products of a panel's rows with the first X of `x`.
#[inline(always)]
fn of_panel<L: Lanes, const X: usize>(panel: &[f32], x: &[&[f32]]) -> [L::V; X] {
    let mut total = [L::splat(0.0); X];
    for column in 0..x[0].len() {
        // SAFETY: the slice holds the N values that are loaded.
        let row = unsafe { L::load(panel[column * L::N..][..L::N].as_ptr()) };
        for i in 0..X {
            total[i] = L::multiply_add(row, L::splat(x[i][column]), total[i]);
        }
    }
    total
}

/// Writes the first `count` lanes of each product to `out`, `stride` apart. Returns X.
#[inline(always)]
fn put<L: Lanes, const X: usize>(products: [L::V; X], out: &mut [f32], stride: usize, count: usize) -> usize {
    for i in 0..X {
        let mut values = [0.0; 16];
        assert!(L::N <= values.len());
        // SAFETY: the array has room for N values.
        unsafe { L::store(products[i], values.as_mut_ptr()) };
        out[i * stride..][..count].copy_from_slice(&values[..count]);
    }
    X
}
