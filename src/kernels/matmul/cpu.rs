//! Products on the CPU: the plain definition, and the form with SIMD and threads.

use super::{Epilogue, Matmul};
use crate::{
    kernel::Kernel,
    kernels::norm::Normalize,
    memory::Memory,
    simd::{Cpu, Job, Lanes, PackedRows, Products, Round, Rounded, RoundedProducts, Shared2d, takes},
    step::Step,
    weights::Part,
    workload::Phase,
};
use std::ops::Range;

impl Matmul {
    /// For each row of y, the row of x from which it is computed: normalized if the matmul has a norm, and
    /// with its padding zeros.
    fn rows_of_x<'a>(
        &self,
        memory: &Memory,
        step: &Step,
        x: &'a [f32],
        normalized: &'a mut Vec<f32>,
        normalize: impl FnOnce(Vec<Normalize>),
    ) -> Vec<&'a [f32]> {
        let (width, stride) = (self.w.columns as usize, self.x.rows.stride() as usize);
        let count = self.y.per.count(&step.load()) as usize;
        let at = |row| if self.picks_outputs() { step.outputs[row] as usize } else { row };
        let rows = (0..count).map(|row| &x[at(row) * stride..][..stride]);
        let Some(norm) = &self.x.norm else { return rows.collect() };
        normalized.resize(count * stride, 0.0);
        let rows = rows.zip(normalized.chunks_mut(stride));
        normalize(
            rows.map(|(x, y)| Normalize { by: norm, memory, x: &x[..width], y: &mut y[..width] }).collect(),
        );
        normalized.chunks(stride).collect()
    }

    /// If y is q, k and v: rotates q and k, and writes k and v into the cache.
    fn finish_qkv(&self, memory: &Memory, step: &Step) {
        if let Epilogue::Qkv { rope, kv_write } = &self.epilogue {
            if let Some(rope) = rope {
                rope.run(memory, step);
            }
            kv_write.run(memory, step);
        }
    }

    /// Applies bias, activation and epilogue to products, for as many values of a row of y from `first` on.
    #[inline(always)]
    fn finish(&self, memory: &Memory, first: usize, product: &mut [f32], up: &mut [f32], y: &mut [f32]) {
        if let Some(bias) = self.w.bias {
            let bias = bias.of(memory);
            add(product, &bias[first..]);
            if self.is_gated() {
                add(up, &bias[self.y.width as usize + first..]);
            }
        }
        self.activation.apply(product);
        if self.is_gated() {
            for (value, up) in product.iter_mut().zip(up) {
                *value *= *up;
            }
        }
        if matches!(self.epilogue, Epilogue::Add) { add(y, product) } else { y.copy_from_slice(product) }
    }

    /// The definition: one product after the other, summed in order.
    pub(super) fn run_plain(&self, memory: &Memory, step: &Step) {
        let (x, mut normalized) = (memory.read(self.x.rows.buffer), Vec::new());
        let normalize = |rows: Vec<Normalize>| rows.into_iter().for_each(Normalize::plain);
        let x = self.rows_of_x(memory, step, &x, &mut normalized, normalize);
        let mut y = memory.write(self.y.buffer);
        let mut products = vec![vec![0.0; self.w.rows as usize]; x.len()];
        let mut w = vec![0.0; self.w.columns as usize];
        for row in 0..self.w.rows {
            self.w.unpack_row(memory, row, &mut w);
            for (products, x) in products.iter_mut().zip(&x) {
                products[row as usize] = w.iter().zip(*x).map(|(w, x)| w * x).sum();
            }
        }
        let n = self.y.width as usize;
        for (products, y) in products.iter_mut().zip(y.chunks_mut(self.y.stride() as usize)) {
            let (product, up) = products.split_at_mut(n);
            self.finish(memory, 0, product, up, &mut y[..n]);
        }
        drop(y);
        self.finish_qkv(memory, step);
    }

    /// The same with SIMD and threads.
    pub(super) fn run_simd(&self, memory: &Memory, step: &Step, phase: Phase, cpu: &Cpu) {
        let (x, mut normalized) = (memory.read(self.x.rows.buffer), Vec::new());
        let x = self.rows_of_x(memory, step, &x, &mut normalized, |rows| {
            let values = rows.len() * self.w.columns as usize;
            cpu.map(8 * values as u64, rows.into_iter(), |row| cpu.simd.run(row));
        });
        if x.is_empty() {
            return;
        }
        let (n, columns) = (self.y.width as usize, self.w.columns as usize);
        // With few rows, most time goes into fetching and decoding weights, and rounding makes decoding
        // cheaper. With many rows it would save little.
        let rounds = |part: &Part| phase == Phase::Decode && cpu.rounds() && takes(part.format, columns);
        let rounded: Vec<Rounded> = match self.w.parts.iter().any(rounds) {
            true => {
                cpu.map(16 * (x.len() * columns) as u64, x.iter(), |x| cpu.simd.run(Round(&x[..columns])))
            }
            false => Vec::new(),
        };
        let mut written = memory.write(self.y.buffer);
        let y = Shared2d::new(&mut written, self.y.stride() as usize);
        // A piece computes some columns of y, for all rows. One thread sums each product, in an order that
        // depends neither on the number of threads nor on the other rows.
        let piece = cpu.piece(n, 24);
        let operations = 2 * u64::from(self.w.rows) * (columns * x.len()) as u64;
        cpu.for_each(operations, n.div_ceil(piece), |i| {
            let made = i * piece..n.min((i + 1) * piece);
            let count = made.len();
            let halves = if self.is_gated() { 2 } else { 1 };
            // [half][row of y][column]
            let mut products = vec![0.0; halves * x.len() * count];
            for (half, out) in products.chunks_mut(x.len() * count).enumerate() {
                let wanted = half * n + made.start..half * n + made.end;
                for part in &self.w.parts {
                    let of_part = part.rows.start as usize..part.rows.end as usize;
                    let rows = wanted.start.max(of_part.start)..wanted.end.min(of_part.end);
                    if rows.is_empty() {
                        continue;
                    }
                    let packed = &memory.bytes(part.buffer)[(rows.start - of_part.start) * part.row_bytes..];
                    let (format, row_bytes) = (part.format, part.row_bytes);
                    let out = &mut out[rows.start - wanted.start..];
                    let rows = PackedRows { format, packed, row_bytes, columns, count: rows.len() };
                    if rounds(part) {
                        cpu.simd.run(RoundedProducts { rows, x: &rounded, out, stride: count });
                    } else {
                        cpu.simd.run(Products { rows, x: &x, out, stride: count });
                    }
                }
            }
            cpu.simd.run(Finish { matmul: self, memory, made, products: &mut products, rows: x.len(), y });
        });
        drop(written);
        self.finish_qkv(memory, step);
    }
}

/// From a piece's products to its columns of y.
struct Finish<'a> {
    matmul: &'a Matmul,
    memory: &'a Memory,
    made: Range<usize>,
    products: &'a mut [f32],
    rows: usize,
    y: Shared2d<'a>,
}

impl Job for Finish<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { matmul, memory, made, products, rows, y } = self;
        let count = made.len();
        let (product, up) = products.split_at_mut(rows * count);
        for row in 0..rows {
            // SAFETY: these columns are this piece's alone.
            let y = unsafe { y.part(row, made.clone()) };
            let product = &mut product[row * count..][..count];
            let up = if matmul.is_gated() { &mut up[row * count..][..count] } else { &mut [][..] };
            matmul.finish(memory, made.start, product, up, y);
        }
    }
}

/// a += b
#[inline(always)]
fn add(a: &mut [f32], b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += b;
    }
}
