use super::{
    Cache, STEP, flag,
    kv_write::{KvWrite, kv_write},
    norm::Normalize,
    reduce,
    rope::{RopeKernel, rope},
};
use crate::{
    architecture::{Activation, NormKind},
    buffers::{Buffer, Per, Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Splits, Target},
    memory::Memory,
    shader::Program,
    simd::{Cpu, Job, Lanes, PackedRows, Products, Round, Rounded, RoundedProducts, Shared2d, takes},
    step::Step,
    weights::{Matrix, NormWeights, Part},
    workload::{Phase, Workload},
};
use std::ops::Range;

/// y = W x + bias
pub fn matmul(x: impl Into<Input>, w: &Matrix) -> Matmul {
    let x = x.into();
    assert_eq!(x.rows.width, w.columns, "a value of x for each column");
    let y = x.rows;
    Matmul { x, w: w.clone(), y, activation: Activation::None, gated: false, add: false, heads: None }
}

/// What a matmul reads: rows as they are, or normalized on the way, which a device does for few rows only.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    rows: Rows,
    norm: Option<NormWeights>,
}

impl From<Rows> for Input {
    fn from(rows: Rows) -> Self {
        Self { rows, norm: None }
    }
}

/// x as `by` makes it, folded into the matmul that reads it.
pub fn normed(x: Rows, by: &NormWeights) -> Input {
    assert_eq!(x.width, by.weight.len, "a weight for each value of x");
    Input { rows: x, norm: Some(*by) }
}

/// What becomes of a product that is q, k and v: turned, and written into the cache.
struct Heads {
    rope: Option<RopeKernel>,
    kv_write: KvWrite,
}

pub struct Matmul {
    x: Input,
    w: Matrix,
    y: Rows,
    activation: Activation,
    gated: bool,
    add: bool,
    heads: Option<Heads>,
}

impl Matmul {
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }
    /// W holds a gate above as many rows that it gates: y = activation(gate x) · up x
    pub fn gated(self, gated: bool) -> Self {
        Self { gated, ..self }
    }
    /// y = …; where x has a row for each row of the step and y one for each output, only outputs are
    /// computed.
    pub fn to(self, y: Rows) -> Self {
        assert_eq!(self.w.rows, y.width * if self.gated { 2 } else { 1 }, "a row of W for each value of y");
        Self { y, ..self }
    }
    /// y += …
    pub fn add_to(self, y: Rows) -> Self {
        assert_eq!(self.x.rows.per, y.per, "the residual has the rows of x");
        Self { add: true, ..self.to(y) }
    }
    /// Whether one pass can write all of the cache: in several parts it has more bindings than a pass may,
    /// and pairs that turn must lie in one part of W.
    pub fn can_fuse_kv_write(&self, cache: &Cache) -> bool {
        cache.parts.len() == 1 && self.w.parts.iter().all(|part| part.rows.start.is_multiple_of(2))
    }
    /// y = q, k and v, where q and k turn by `turns`, and k and v are written into the cache too: what
    /// [`rope`] and [`kv_write`] do, folded into this pass.
    pub fn rope_and_cache(self, y: Rows, rope_table: Option<Buffer>, cache: &Cache) -> Self {
        assert!(self.can_fuse_kv_write(cache), "a cache that one pass can write");
        let turned = y.width / cache.head_dim - cache.n_kv_heads;
        let rope = rope_table.map(|table| rope(y, table, turned, cache.head_dim));
        Self { heads: Some(Heads { rope, kv_write: kv_write(y, cache) }), ..self.to(y) }
    }

    /// Whether y has only the rows of x that are outputs.
    fn picks_outputs(&self) -> bool {
        self.x.rows.per == Per::Row && self.y.per == Per::Output
    }

    /// For each row of y the row of x that it comes from, normalized where that is asked for, with the zeros
    /// that follow it.
    fn rows_of_x<'a>(
        &self,
        memory: &Memory,
        step: &Step,
        x: &'a [f32],
        normalized: &'a mut Vec<f32>,
        normalize: impl Fn(Normalize),
    ) -> Vec<&'a [f32]> {
        let (width, stride) = (self.w.columns as usize, self.x.rows.stride() as usize);
        let count = self.y.per.count(&step.load()) as usize;
        let at = |row| if self.picks_outputs() { step.outputs[row] as usize } else { row };
        let rows = (0..count).map(|row| &x[at(row) * stride..][..stride]);
        let Some(norm) = &self.x.norm else { return rows.collect() };
        normalized.resize(count * stride, 0.0);
        for (x, to) in rows.zip(normalized.chunks_mut(stride)) {
            normalize(Normalize { by: norm, memory, x: &x[..width], y: &mut to[..width] });
        }
        normalized.chunks(stride).collect()
    }

    /// What becomes of q, k and v once they stand in y.
    fn finish_heads(&self, memory: &Memory, step: &Step) {
        if let Some(heads) = &self.heads {
            if let Some(rope) = &heads.rope {
                rope.run(memory, step);
            }
            heads.kv_write.run(memory, step);
        }
    }

    /// From products to as many values of y, of which `first` is the first.
    #[inline(always)]
    fn finish(&self, memory: &Memory, first: usize, product: &mut [f32], up: &mut [f32], y: &mut [f32]) {
        if let Some(bias) = self.w.bias {
            let bias = bias.of(memory);
            add(product, &bias[first..]);
            if self.gated {
                add(up, &bias[self.y.width as usize + first..]);
            }
        }
        self.activation.apply(product);
        if self.gated {
            for (value, up) in product.iter_mut().zip(up) {
                *value *= *up;
            }
        }
        if self.add { add(y, product) } else { y.copy_from_slice(product) }
    }

    /// One part's dispatch.
    fn dispatch(&self, target: &Target, part: &Part, form: Form) -> Dispatch {
        let n = self.y.width;
        // A part of the gated half writes where the gate's did.
        let first = if form == Form::Up { part.rows.start - n } else { part.rows.start };
        let rows = if form == Form::Gated { n } else { part.rows.len() as u32 };
        let norm = self.x.norm;
        // The layer's small vectors; x where it has none to read.
        let vectors = norm.map(|n| n.weight.buffer).or(self.w.bias.map(|b| b.buffer));
        let mut uses = vec![
            Use::Read(part.buffer),
            Use::Read(self.x.rows.buffer),
            Use::Read(vectors.unwrap_or(self.x.rows.buffer)),
            Use::Write(self.y.buffer),
        ];
        let mut imports = vec![("operands", include_str!("../../shaders/matmul/operands.wgsl")), STEP];
        imports.extend(part.format.shader());
        let mut constants: Vec<(&str, f64)> = vec![
            ("COLUMNS8", self.w.columns8().into()),
            ("MATRIX_ROWS", (part.rows.len() as u32).into()),
            ("ROWS", rows.into()),
            ("FIRST", first.into()),
            ("STRIDE", self.y.stride().into()),
            ("BIAS_AT", self.w.bias.map_or(0, |b| b.at + part.rows.start).into()),
            ("BIAS", flag(self.w.bias.is_some())),
            ("GATED", flag(form == Form::Gated)),
            ("OUTPUTS", flag(self.picks_outputs())),
        ];
        constants.extend(part.format.constants(part.row_bytes));
        if let Some(heads) = &self.heads {
            imports.push(("epilogue", include_str!("../../shaders/matmul/cached.wgsl")));
            let kv = heads.kv_write.width();
            constants.extend([("Q", (n - 2 * kv).into()), ("KV", kv.into())]);
            uses.push(Use::Write(heads.kv_write.parts()[0].buffer));
            imports.push((
                "turn",
                match &heads.rope {
                    None => include_str!("../../shaders/turn/none.wgsl"),
                    Some(rope) => {
                        constants.push(("PAIRS", rope.pairs.into()));
                        uses.push(Use::Read(rope.table));
                        include_str!("../../shaders/turn/rotary.wgsl")
                    }
                },
            ));
        } else {
            let activation = if form == Form::Up { Activation::None } else { self.activation };
            imports.push(("epilogue", include_str!("../../shaders/matmul/epilogue.wgsl")));
            imports.push(("activation", activation.shader()));
            constants.extend([
                ("UP", n.into()),
                ("ADD", flag(self.add)),
                ("MULTIPLY", flag(form == Form::Up)),
            ]);
        }
        let (name, source, tile, tile_rows) = match target.phase {
            Phase::Prefill => {
                assert!(norm.is_none(), "for many rows a norm is a pass of its own");
                let outputs = if form == Form::Gated { 32 } else { 64 };
                ("matmul_tiled", include_str!("../../shaders/matmul/tiled.wgsl"), outputs, 64)
            }
            Phase::Decode => {
                imports.push(reduce(target));
                let norm_bias = norm.and_then(|n| n.bias);
                // Where there are blocks enough for all threads, each takes them whole, and their scales
                // once.
                let takes_blocks = part.format.is_blocks() && self.w.columns8() >= 4 * 64;
                constants.extend([
                    ("RUN", if takes_blocks { 4.0 } else { 1.0 }),
                    ("WIDTH", self.w.columns.into()),
                    ("NORM", flag(norm.is_some())),
                    ("NORM_CENTER", flag(norm.is_some_and(|n| n.kind == NormKind::Layer))),
                    ("NORM_BIAS", flag(norm_bias.is_some())),
                    ("NORM_WEIGHT_AT", norm.map_or(0, |n| n.weight.at).into()),
                    ("NORM_BIAS_AT", norm_bias.map_or(0, |b| b.at).into()),
                    ("EPSILON", norm.map_or(0.0, |n| n.epsilon.into())),
                ]);
                let outputs = if form == Form::Gated { 2 } else { 4 };
                ("matmul_vector", include_str!("../../shaders/matmul/vector.wgsl"), outputs, 4)
            }
        };
        let program = Program { name, source, imports, constants };
        Dispatch {
            program,
            uses,
            grid: Grid {
                groups: rows.div_ceil(tile),
                per: self.y.per,
                rows: tile_rows,
                splits: Splits::Whole,
            },
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
        let norm = self.x.norm.map(|n| format!("{:?} norm", n.kind).to_lowercase());
        for (on, word) in [
            (norm.is_some(), norm.unwrap_or_default()),
            (self.w.bias.is_some(), "bias".to_owned()),
            (self.activation != Activation::None, format!("{:?}", self.activation).to_lowercase()),
            (self.gated, "gated".to_owned()),
            (self.add, "added".to_owned()),
            (self.picks_outputs(), "outputs".to_owned()),
            (self.heads.as_ref().is_some_and(|h| h.rope.is_some()), "rope".to_owned()),
            (self.heads.is_some(), "kv_write".to_owned()),
        ] {
            if on {
                note = format!("{note}, {word}");
            }
        }
        note
    }
    fn uses(&self) -> Vec<Use> {
        let parts = self.w.parts.iter().map(|p| Use::Read(p.buffer));
        let vectors = self.x.norm.map(|n| n.weight.buffer).or(self.w.bias.map(|b| b.buffer));
        let heads = self.heads.iter();
        std::iter::once(Use::Read(self.x.rows.buffer))
            .chain(parts)
            .chain(vectors.map(Use::Read))
            .chain(heads.clone().filter_map(|h| h.rope.as_ref()).map(|rope| Use::Read(rope.table)))
            .chain([Use::Write(self.y.buffer)])
            .chain(heads.map(|h| Use::Write(h.kv_write.parts()[0].buffer)))
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
    fn cost(&self, load: &Workload) -> Cost {
        let rows = u64::from(self.y.per.count(load));
        let activations = rows * u64::from(self.w.columns + self.y.width) * 4;
        Cost {
            bytes: self.w.bytes() + activations,
            flops: 2 * rows * u64::from(self.w.rows) * u64::from(self.w.columns),
        }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let (x, mut normalized) = (memory.read(self.x.rows.buffer), Vec::new());
        let x = self.rows_of_x(memory, step, &x, &mut normalized, |row| row.plain());
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
        self.finish_heads(memory, step);
    }
    fn run_fast(&self, memory: &Memory, step: &Step, phase: Phase, cpu: &Cpu) {
        let (x, mut normalized) = (memory.read(self.x.rows.buffer), Vec::new());
        let x = self.rows_of_x(memory, step, &x, &mut normalized, |row| cpu.simd.run(row));
        if x.is_empty() {
            return;
        }
        let (n, columns) = (self.y.width as usize, self.w.columns as usize);
        // Few rows cost what their bytes cost to fetch and decode, which rounding makes less of; for many it
        // would save little.
        let rounds = |part: &Part| phase == Phase::Decode && cpu.rounds() && takes(part.format, columns);
        let rounded: Vec<Rounded> = match self.w.parts.iter().any(rounds) {
            true => x.iter().map(|x| cpu.simd.run(Round(&x[..columns]))).collect(),
            false => Vec::new(),
        };
        let mut written = memory.write(self.y.buffer);
        let y = Shared2d::new(&mut written, self.y.stride() as usize);
        // A piece makes some columns of y, for all its rows. Each product is summed by one thread, in an
        // order that neither their number nor the other rows change.
        let piece = cpu.piece(n, 24);
        let operations = 2 * u64::from(self.w.rows) * (columns * x.len()) as u64;
        cpu.for_each(operations, n.div_ceil(piece), |i| {
            let made = i * piece..n.min((i + 1) * piece);
            let count = made.len();
            let halves = if self.gated { 2 } else { 1 };
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
        self.finish_heads(memory, step);
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
            let up = if matmul.gated { &mut up[row * count..][..count] } else { &mut [][..] };
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
