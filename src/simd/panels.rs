//! Products with many rows of x, by panels: rows are laid so that one lies in each lane, and then all of x passes over
//! them. What it takes to lay them so serves all of x, and no sum over lanes is taken.
//!
//! Quantised rows meet x that is rounded to eight bits, `--math fast` for prompts, by products of bytes; rows of f32, the
//! keys of attention, meet queries.

use super::{
    int8::{BLOCK, Ints, PARTS, Rounded, Scales},
    lanes::{Job, Lanes},
    products::Rows,
};

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

/// Fours of bytes in a part.
const FOURS: usize = BLOCK / 4;

/// As many rows as there are lanes.
#[derive(Default)]
struct Panel {
    /// [part][four][lane]
    u: Vec<u32>,
    /// Scales and offsets, [part][half][lane].
    s: Vec<f32>,
    m: Vec<f32>,
}

impl Panel {
    fn new(parts: usize, lanes: usize) -> Self {
        let scales = vec![0.0; parts * 2 * lanes];
        Self { u: vec![0; parts * FOURS * lanes], s: scales.clone(), m: scales }
    }

    /// Unpacks a row into a lane.
    #[inline(always)]
    fn fill<L: Lanes, F: Ints>(&mut self, packed: &[u8], parts: usize, lane: usize) {
        let mut first = 0;
        while first < parts {
            let count = PARTS.min(parts - first);
            let packed = &packed[F::bytes(first)..];
            let Scales { s, m } = F::scales::<L>(packed, count);
            for i in 0..count {
                let u = F::u(packed, i);
                let fours = u.as_chunks::<4>().0;
                // What is signed is made unsigned by 128 more, which is taken off the products.
                let more = if F::SIGNED { 0x8080_8080 } else { 0 };
                for four in 0..FOURS {
                    let u = u32::from_ne_bytes(fours[four]) ^ more;
                    self.u[((first + i) * FOURS + four) * L::N + lane] = u;
                }
                for half in 0..2 {
                    self.s[((first + i) * 2 + half) * L::N + lane] = s[half][i];
                    self.m[((first + i) * 2 + half) * L::N + lane] = m[half][i];
                }
            }
            first += count;
        }
    }

    /// Its rows with some of x's.
    #[inline(always)]
    fn products<L: Lanes, F: Ints, const X: usize>(&self, x: &[Rounded]) -> [L::V; X] {
        let mut total = [L::splat(0.0); X];
        for part in 0..x[0].d.len() {
            let u = &self.u[part * FOURS * L::N..][..FOURS * L::N];
            let mut q = [x[0].q.as_ptr(); X];
            for i in 0..X {
                q[i] = x[i].q[part * BLOCK..][..BLOCK].as_ptr();
            }
            let mut from = [0; X];
            if F::SIGNED {
                for i in 0..X {
                    from[i] = -128 * x[i].q_sums[part];
                }
            }
            let (s, m) = (&self.s[part * 2 * L::N..][..2 * L::N], &self.m[part * 2 * L::N..][..2 * L::N]);
            // SAFETY: fours of as many lanes, blocks of bytes, and scales of as many lanes, each sliced above.
            unsafe {
                if F::HALVES {
                    let mut second = q;
                    for q in &mut second {
                        *q = q.add(BLOCK / 2);
                    }
                    let halves = [
                        L::panel_products::<{ FOURS / 2 }, X>(u.as_ptr(), q, from),
                        L::panel_products::<{ FOURS / 2 }, X>(u.as_ptr().add(FOURS / 2 * L::N), second, from),
                    ];
                    for half in 0..2 {
                        let (s, m) =
                            (L::load(s.as_ptr().add(half * L::N)), L::load(m.as_ptr().add(half * L::N)));
                        for i in 0..X {
                            let by = L::multiply_add(s, L::splat(x[i].d[part]), L::splat(0.0));
                            total[i] = L::multiply_add(halves[half][i], by, total[i]);
                            total[i] = L::multiply_add(m, L::splat(x[i].sums[1 + half][part]), total[i]);
                        }
                    }
                } else {
                    let products = L::panel_products::<FOURS, X>(u.as_ptr(), q, from);
                    let (s, m) = (L::load(s.as_ptr()), L::load(m.as_ptr()));
                    for i in 0..X {
                        let by = L::multiply_add(s, L::splat(x[i].d[part]), L::splat(0.0));
                        total[i] = L::multiply_add(products[i], by, total[i]);
                        if !F::SIGNED {
                            total[i] = L::multiply_add(m, L::splat(x[i].sums[0][part]), total[i]);
                        }
                    }
                }
            }
        }
        total
    }
}

/// What [`super::RoundedProducts`] does of many x.
#[inline(always)]
pub(super) fn products<L: Lanes, F: Ints>(rows: Rows, x: &[Rounded], out: &mut [f32], stride: usize) {
    let parts = rows.columns / BLOCK;
    let mut panel = Panel::new(parts, L::N);
    let mut first = 0;
    while first < rows.count {
        // Lanes without a row keep those of the panel before: nobody asks what comes of them.
        let count = L::N.min(rows.count - first);
        for lane in 0..count {
            let packed = &rows.packed[(first + lane) * rows.row_bytes..][..F::bytes(parts)];
            panel.fill::<L, F>(packed, parts, lane);
        }
        let mut at = 0;
        while at < x.len() {
            let left = &x[at..];
            at += if L::MANY_REGISTERS && left.len() >= 8 {
                put::<L, 8>(panel.products::<L, F, 8>(left), &mut out[at * stride + first..], stride, count)
            } else if left.len() >= 4 {
                put::<L, 4>(panel.products::<L, F, 4>(left), &mut out[at * stride + first..], stride, count)
            } else {
                put::<L, 1>(panel.products::<L, F, 1>(left), &mut out[at * stride + first..], stride, count)
            };
        }
        first += count;
    }
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
