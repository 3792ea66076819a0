//! Shared by the fast CPU forms of the kernels: threads with little overhead per call, and SIMD vectors of
//! f32 ("lanes") for products, sums and exponentials. On one machine the order of every sum is fixed; it does
//! not depend on the number of threads or on the other rows of a step.

#![allow(clippy::needless_range_loop)] // one index is used for several arrays

mod exp;
mod int8;
mod panels;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod products;
mod threads;
mod unpack;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use exp::exp;
pub use int8::{Round, Rounded, RoundedProducts, takes};
pub use lanes::{Job, Lanes, Simd};
pub use panels::KeyProducts;
pub use products::{Dot, Mix, PackedRows, Products};
pub use threads::{Shared2d, Threads};

use std::sync::Mutex;

/// How exactly products are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Math {
    /// Every product and sum in f32.
    #[default]
    F32,
    /// Where that is faster: on the CPU, products of quantised weights with activations that are rounded to
    /// eight bits in blocks; on a GPU with cooperative matrices, products of many rows with weights and
    /// activations in f16.
    Fast,
}

/// What the fast form of a kernel runs on: the SIMD instructions and the threads.
pub struct Cpu {
    pub simd: Simd,
    pub math: Math,
    threads: Mutex<Threads>,
    count: usize,
}

/// A pass of fewer operations than this, some microseconds of work, runs on one thread.
const WORTH_THREADS: u64 = 40_000;

impl Cpu {
    /// # Errors
    /// If this many threads cannot be started.
    pub fn new(threads: usize, math: Math) -> std::io::Result<Self> {
        let simd = Simd::detect();
        Ok(Self { simd, math, threads: Mutex::new(Threads::new(threads)?), count: threads })
    }

    /// Whether products of quantised weights use rounded activations.
    pub fn rounds(&self) -> bool {
        self.math == Math::Fast && self.simd.has_byte_products()
    }

    /// Calls `work` for each of 0..pieces, on all threads if there are enough `operations`.
    pub fn for_each(&self, operations: u64, pieces: usize, work: impl Fn(usize) + Sync) {
        if self.count == 1 || operations < WORTH_THREADS {
            return (0..pieces).for_each(work);
        }
        let mut threads = self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        threads.for_each(pieces, &work);
    }

    /// What `work` makes of each item, in their order; like [`Cpu::for_each`].
    pub fn map<T: Send, U: Send>(
        &self,
        operations: u64,
        items: impl ExactSizeIterator<Item = T>,
        work: impl Fn(T) -> U + Sync,
    ) -> Vec<U> {
        if self.count == 1 || operations < WORTH_THREADS {
            return items.map(work).collect();
        }
        let places: Vec<_> = items.map(|item| Mutex::new((Some(item), None))).collect();
        self.for_each(operations, places.len(), |i| {
            let mut place = places[i].lock().expect("each place has one thread");
            place.1 = place.0.take().map(&work);
        });
        places.into_iter().filter_map(|place| place.into_inner().expect("no panic").1).collect()
    }

    /// The size of the pieces into which to divide `things`: a multiple of `unit`, for about four pieces per
    /// thread.
    pub fn piece(&self, things: usize, unit: usize) -> usize {
        things.div_ceil(4 * self.count).next_multiple_of(unit).clamp(unit, 10 * unit)
    }
}

/// The sum of values, from sixteen partial sums: in the same order on every machine.
#[inline(always)]
pub fn sum(values: &[f32]) -> f32 {
    let (sixteens, rest) = values.as_chunks::<16>();
    let mut partial = [0.0f32; 16];
    for sixteen in sixteens {
        for i in 0..16 {
            partial[i] += sixteen[i];
        }
    }
    let mut total = 0.0;
    for value in partial.iter().chain(rest) {
        total += value;
    }
    total
}

/// The highest of the values, ignoring NaN.
#[inline(always)]
pub fn highest(values: &[f32]) -> f32 {
    let (sixteens, rest) = values.as_chunks::<16>();
    let mut partial = [f32::MIN; 16];
    for sixteen in sixteens {
        for i in 0..16 {
            partial[i] = if sixteen[i] > partial[i] { sixteen[i] } else { partial[i] };
        }
    }
    let mut top = f32::MIN;
    for value in partial.iter().chain(rest) {
        top = if *value > top { *value } else { top };
    }
    top
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Format, Random, Tensor};

    fn values(count: usize, seed: u64) -> Vec<f32> {
        let mut random = Random(seed);
        (0..count).map(|_| random.value()).collect()
    }

    fn rows(simd: Simd, rows: PackedRows, x: &[&[f32]]) -> Vec<f32> {
        let mut out = vec![0.0; rows.count * x.len()];
        simd.run(Products { rows, x, out: &mut out, stride: rows.count });
        out
    }

    /// For every instruction set and format, odd sizes, one and many rows: the products equal those in f64
    /// within rounding, and one row of x at a time gives the same bits as all at once.
    #[test]
    fn products_are_right_and_do_not_depend_on_company() {
        for simd in Simd::all() {
            for format in Format::ALL {
                for (columns, count, xs) in [(1, 1, 1), (7, 5, 3), (40, 11, 19), (61, 9, 4), (512, 27, 13)] {
                    if columns % format.block_values() != 0 {
                        continue;
                    }
                    let tensor = Tensor::random("w", format, count, columns, 5);
                    let row_bytes = format.row_bytes(columns);
                    let w = PackedRows { format, packed: tensor.bytes(), row_bytes, columns, count };
                    let x: Vec<Vec<f32>> = (0..xs).map(|i| values(columns, i as u64)).collect();
                    let x: Vec<&[f32]> = x.iter().map(|x| &x[..]).collect();
                    let out = rows(simd, w, &x);
                    for (i, x) in x.iter().enumerate() {
                        let alone = rows(simd, w, &[x]);
                        for row in 0..count {
                            let mut values = vec![0.0; columns];
                            format.unpack(&tensor.bytes()[row * row_bytes..], &mut values);
                            let terms = || values.iter().zip(*x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                            let (exact, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                            let got = out[i * count + row];
                            let what = format!("{simd:?} {format:?} {columns} {count} {xs}");
                            assert!(
                                (f64::from(got) - exact).abs() <= 1e-6 * size,
                                "{what}: {got} for {exact}"
                            );
                            assert_eq!(got.to_bits(), alone[row].to_bits(), "{what}");
                        }
                    }
                }
            }
        }
    }

    /// Products with rounded rows equal products with the values that the rounded rows represent: for whole
    /// groups of eight blocks, and with one, two and three blocks left. Fifteen rows of x are multiplied
    /// eight, four, two and one at a time; each has the same bits alone.
    #[test]
    fn rounded_products_are_those_of_the_rounded_values() {
        const XS: usize = 15;
        for simd in Simd::all() {
            for (format, columns) in Format::ALL.into_iter().flat_map(|f| [512, 32, 320, 352].map(|n| (f, n)))
            {
                if columns % format.block_values() != 0 || !takes(format, columns) {
                    continue;
                }
                let what = format!("{simd:?} {format:?} {columns}");
                let count = 5;
                let tensor = Tensor::random("w", format, count, columns, 5);
                let row_bytes = format.row_bytes(columns);
                let w = PackedRows { format, packed: tensor.bytes(), row_bytes, columns, count };
                let x: Vec<Vec<f32>> = (0..XS).map(|i| values(columns, i as u64)).collect();
                let rounded: Vec<Rounded> = x.iter().map(|x| simd.run(Round(x))).collect();
                for (x, rounded) in x.iter().zip(&rounded) {
                    assert_eq!(rounded.values().len(), columns, "{what}");
                    let top = highest(&x.iter().map(|x| x.abs()).collect::<Vec<_>>());
                    for (x, rounded) in x.iter().zip(rounded.values()) {
                        assert!((x - rounded).abs() <= top / 253.0, "{what}: {rounded} for {x}");
                    }
                }
                let products = |x: &[Rounded]| {
                    let mut out = vec![0.0; x.len() * count];
                    simd.run(RoundedProducts { rows: w, x, out: &mut out, stride: count });
                    out
                };
                let out = products(&rounded);
                let x: Vec<Vec<f32>> = rounded.iter().map(Rounded::values).collect();
                let x: Vec<&[f32]> = x.iter().map(|x| &x[..]).collect();
                let exact = rows(simd, w, &x);
                let size = exact.iter().fold(1.0f32, |top, v| top.max(v.abs()));
                for (got, exact) in out.iter().zip(&exact) {
                    assert!((got - exact).abs() <= 2e-6 * size, "{what}: {got} for {exact}");
                }
                for (i, of_x) in out.chunks(count).enumerate() {
                    let alone = products(&rounded[i..i + 1]);
                    assert!(alone.iter().zip(of_x).all(|(a, b)| a.to_bits() == b.to_bits()), "{what}: {i}");
                }
            }
        }
    }

    #[test]
    fn every_piece_is_done_once_and_a_panic_is_told() {
        let cpu = Cpu::new(3, Math::F32).expect("threads");
        for pieces in [0, 1, 2, 100] {
            for _ in 0..200 {
                let mut done = vec![0.0; pieces];
                let all = Shared2d::new(&mut done, 1);
                // SAFETY: each piece is taken once.
                cpu.for_each(u64::MAX, pieces, |i| unsafe { all.part(i, 0..1)[0] += 1.0 });
                assert!(done.iter().all(|d| *d == 1.0), "{done:?}");
            }
        }
        let panics = || cpu.for_each(u64::MAX, 50, |i| assert_ne!(i, 30));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    }
}
