//! Products of rows of f32 with many x, by panels: rows are laid so that one lies in each lane, and then all of x passes
//! over them. What it takes to lay them so serves all of x, and no sum over lanes is taken. So keys of attention meet the
//! queries of a prompt.

use super::lanes::{Job, Lanes};

/// `out[i · stride + row] = rows[row] · x[i]` of rows of f32, so many values apart. Neither the number of rows nor that of x
/// changes a sum.
pub struct KeyProducts<'a> {
    pub rows: &'a [f32],
    pub row_stride: usize,
    pub count: usize,
    /// Each as long as a row.
    pub x: &'a [&'a [f32]],
    pub out: &'a mut [f32],
    pub stride: usize,
}

impl Job for KeyProducts<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { rows, row_stride, count, x, out, stride } = self;
        let columns = x.first().map_or(0, |x| x.len());
        assert!(x.iter().all(|x| x.len() == columns), "rows of one length");
        // [column][lane]
        let mut panel = vec![0.0; columns * L::N];
        let mut first = 0;
        while first < count {
            let lanes = L::N.min(count - first);
            for lane in 0..lanes {
                let row = &rows[(first + lane) * row_stride..][..columns];
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
}

/// A panel's rows with some of x.
#[inline(always)]
fn of_panel<L: Lanes, const X: usize>(panel: &[f32], x: &[&[f32]]) -> [L::V; X] {
    let mut total = [L::splat(0.0); X];
    for column in 0..x[0].len() {
        // SAFETY: as many lanes for each column.
        let row = unsafe { L::load(panel[column * L::N..][..L::N].as_ptr()) };
        for i in 0..X {
            total[i] = L::multiply_add(row, L::splat(x[i][column]), total[i]);
        }
    }
    total
}

/// Puts the first lanes of some rows where they belong; how many rows.
#[inline(always)]
fn put<L: Lanes, const X: usize>(products: [L::V; X], out: &mut [f32], stride: usize, count: usize) -> usize {
    for i in 0..X {
        let mut values = [0.0; 16];
        assert!(L::N <= values.len());
        // SAFETY: room for as many lanes.
        unsafe { L::store(products[i], values.as_mut_ptr()) };
        out[i * stride..][..count].copy_from_slice(&values[..count]);
    }
    X
}
