use super::{Activation, Cost, Dispatch, Grid, Kernel, STEP, Target, flag, reduce};
use crate::{
    memory::Memory,
    plan::{Per, Rows, Shape, Use},
    shader::Program,
    simd::Cpu,
    step::{Load, Step},
    weights::{Matrix, Part},
};
use rayon::prelude::*;

/// y = W x + bias
pub fn matmul(x: Rows, w: &Matrix) -> Matmul {
    assert_eq!(x.width, w.columns, "a value of x for each column");
    Matmul { x, w: w.clone(), y: x, activation: Activation::None, gated: false, add: false }
}

pub struct Matmul {
    x: Rows,
    w: Matrix,
    y: Rows,
    activation: Activation,
    gated: bool,
    add: bool,
}

impl Matmul {
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }
    /// W holds a gate above as many rows that it gates: y = activation(gate x) · up x
    pub fn gated(self, gated: bool) -> Self {
        Self { gated, ..self }
    }
    /// y = …; where x has a row for each row of the step and y one for each output, only outputs are computed.
    pub fn to(self, y: Rows) -> Self {
        assert_eq!(self.w.rows, y.width * if self.gated { 2 } else { 1 }, "a row of W for each value of y");
        Self { y, ..self }
    }
    /// y += …
    pub fn add_to(self, y: Rows) -> Self {
        assert_eq!(self.x.per, y.per, "the residual has the rows of x");
        Self { add: true, ..self.to(y) }
    }

    /// Whether y has only the rows of x that are outputs.
    fn picks_outputs(&self) -> bool {
        self.x.per == Per::Row && self.y.per == Per::Output
    }

    /// The row of x that a row of y comes from.
    fn x_row(&self, step: &Step, row: usize) -> usize {
        if self.picks_outputs() { step.outputs[row] as usize } else { row }
    }

    /// From a row of products (with the gated half, where there is one) to a row of y.
    fn finish(&self, bias: Option<&[f32]>, product: impl Fn(usize) -> f32, y: &mut [f32]) {
        let n = self.y.width as usize;
        for (i, y) in y[..n].iter_mut().enumerate() {
            let mut value = self.activation.of(product(i) + bias.map_or(0.0, |b| b[i]));
            if self.gated {
                value *= product(n + i) + bias.map_or(0.0, |b| b[n + i]);
            }
            *y = if self.add { *y + value } else { value };
        }
    }

    /// One part's dispatch.
    fn dispatch(&self, target: &Target, part: &Part, form: Form) -> Dispatch {
        let n = self.y.width;
        // A part of the gated half writes where the gate's did.
        let first = if form == Form::Up { part.rows.start - n } else { part.rows.start };
        let rows = if form == Form::Gated { n } else { part.rows.len() as u32 };
        let activation = if form == Form::Up { Activation::None } else { self.activation };
        let bias_at = self.w.bias.map_or(0, |b| b.at + part.rows.start);
        let common = [
            ("operands", include_str!("../../shaders/matmul/operands.wgsl")),
            STEP,
            ("activation", activation.shader()),
            ("epilogue", include_str!("../../shaders/matmul/epilogue.wgsl")),
        ];
        let common = [&common[..], &part.format.shader()].concat();
        let (source, imports, tile, tile_rows) = match target.shape {
            Shape::Prefill => (include_str!("../../shaders/matmul/tiled.wgsl"), common, 32, 32),
            Shape::Decode => (
                include_str!("../../shaders/matmul/vector.wgsl"),
                [&common[..], &[reduce(target)]].concat(),
                4,
                1,
            ),
        };
        let program = Program {
            name: "matmul",
            source,
            imports,
            constants: vec![
                ("COLUMNS8", self.w.columns8().into()),
                ("MATRIX_ROWS", (part.rows.len() as u32).into()),
                ("ROWS", rows.into()),
                ("FIRST", first.into()),
                ("STRIDE", self.y.stride().into()),
                ("BIAS_AT", bias_at.into()),
                ("UP_BIAS_AT", (bias_at + n).into()),
                ("BIAS", flag(self.w.bias.is_some())),
                ("GATED", flag(form == Form::Gated)),
                ("ADD", flag(self.add)),
                ("MULTIPLY", flag(form == Form::Up)),
                ("OUTPUTS", flag(self.picks_outputs())),
            ]
            .into_iter()
            .chain(part.format.constants(part.row_bytes))
            .collect(),
        };
        let vectors = self.w.bias.map_or(self.x.buffer, |b| b.buffer);
        Dispatch {
            program,
            uses: vec![
                Use::Read(part.buffer),
                Use::Read(self.x.buffer),
                Use::Read(vectors),
                Use::Write(self.y.buffer),
            ],
            grid: Grid { groups: rows.div_ceil(tile), per: self.y.per, rows: tile_rows },
        }
    }
}

/// What a dispatch makes of a part's rows.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Plain,
    /// The part holds gate and up.
    Gated,
    /// The part holds rows of up, and y already the activated gate.
    Up,
}

impl Kernel for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }
    fn note(&self) -> String {
        let mut note = format!("{}×{} {}", self.w.rows, self.w.columns, self.w.formats());
        for (on, word) in [
            (self.w.bias.is_some(), "bias".to_owned()),
            (self.activation != Activation::None, format!("{:?}", self.activation).to_lowercase()),
            (self.gated, "gated".to_owned()),
            (self.add, "added".to_owned()),
            (self.picks_outputs(), "outputs".to_owned()),
        ] {
            if on {
                note = format!("{note}, {word}");
            }
        }
        note
    }
    fn uses(&self) -> Vec<Use> {
        let parts = self.w.parts.iter().map(|p| Use::Read(p.buffer));
        std::iter::once(Use::Read(self.x.buffer))
            .chain(parts)
            .chain(self.w.bias.map(|b| Use::Read(b.buffer)))
            .chain([Use::Write(self.y.buffer)])
            .collect()
    }
    fn dispatches(&self, target: &Target) -> Vec<Dispatch> {
        let n = self.y.width;
        let form = |part: &Part| match self.gated {
            false => Form::Plain,
            true if part.rows.end <= n => Form::Plain,
            true if part.rows.start >= n => Form::Up,
            true => {
                assert_eq!(part.rows, 0..2 * n, "a part holds gate and up whole, or rows of one of them");
                Form::Gated
            }
        };
        assert!(!(self.gated && self.add), "a gated product is not a residual");
        self.w.parts.iter().map(|part| self.dispatch(target, part, form(part))).collect()
    }
    fn cost(&self, load: &Load) -> Cost {
        let rows = u64::from(self.y.per.count(load));
        let activations = rows * u64::from(self.w.columns + self.y.width) * 4;
        Cost {
            bytes: self.w.bytes() + activations,
            flops: 2 * rows * u64::from(self.w.rows) * u64::from(self.w.columns),
        }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let columns = self.w.columns as usize;
        let count = self.y.per.count(&step.load()) as usize;
        let bias = self.w.bias.map(|b| b.of(memory));
        let (x, mut y) = (memory.read(self.x.buffer), memory.write(self.y.buffer));
        let mut products = vec![vec![0.0; self.w.rows as usize]; count];
        let mut w = vec![0.0; columns];
        for row in 0..self.w.rows {
            self.w.unpack_row(memory, row, &mut w);
            for (i, products) in products.iter_mut().enumerate() {
                let x = &x[self.x_row(step, i) * self.x.stride() as usize..][..columns];
                products[row as usize] = w.iter().zip(x).map(|(w, x)| w * x).sum();
            }
        }
        for (products, y) in products.iter().zip(y.chunks_mut(self.y.stride() as usize)) {
            self.finish(bias, |i| products[i], y);
        }
    }
    fn run_fast(&self, memory: &Memory, step: &Step, cpu: &Cpu) {
        let columns = self.w.columns as usize;
        let count = self.y.per.count(&step.load()) as usize;
        if count == 0 {
            return;
        }
        let bias = self.w.bias.map(|b| b.of(memory));
        let (x, mut y) = (memory.read(self.x.buffer), memory.write(self.y.buffer));
        let x: Vec<&[f32]> = (0..count)
            .map(|i| &x[self.x_row(step, i) * self.x.stride() as usize..][..self.x.stride() as usize])
            .collect();
        // [row of W][row of y]: what a thread makes lies together. Each product is summed by one thread, in an
        // order that neither their number nor the other rows change.
        let mut products = cpu.scratch(self.w.rows as usize * count);
        let threads = self.w.rows as u64 * columns as u64 * count as u64 * 2 >= cpu.worth_threads;
        let block = cpu.block_rows(self.w.rows as usize, threads);
        for part in &self.w.parts {
            let bytes = memory.bytes(part.buffer);
            let rows = &mut products[part.rows.start as usize * count..part.rows.end as usize * count];
            let multiply = |(i, out): (usize, &mut [f32])| {
                let first = i * block * part.row_bytes;
                let packed = &bytes[first..][..out.len() / count * part.row_bytes];
                cpu.simd.products(part.format, packed, part.row_bytes, columns, &x, out);
            };
            if threads {
                rows.par_chunks_mut(block * count).enumerate().for_each(multiply);
            } else {
                rows.chunks_mut(block * count).enumerate().for_each(multiply);
            }
        }
        let finish = |(row, y): (usize, &mut [f32])| {
            self.finish(bias, |i| products[i * count + row], y);
        };
        let y = &mut y[..count * self.y.stride() as usize];
        if threads && count > 1 {
            y.par_chunks_mut(self.y.stride() as usize).enumerate().for_each(finish);
        } else {
            y.chunks_mut(self.y.stride() as usize).enumerate().for_each(finish);
        }
        cpu.give_back(products);
    }
}
