//! Matrix products: the kernel and how plans build it (here), what a device runs for it (program.rs), and how
//! the CPU computes it (cpu.rs).

mod cpu;
mod program;

use super::{
    Cache,
    kv_write::{KvWrite, kv_write},
    rope::{RopeKernel, rope},
};
use crate::{
    architecture::Activation,
    buffers::{Buffer, Per, Rows, Use},
    kernel::{Cost, Dispatch, Kernel, Target},
    memory::Memory,
    simd::Cpu,
    step::Step,
    weights::{Matrix, NormWeights},
    workload::{Phase, Workload},
};

/// y = W x + bias
pub fn matmul(x: impl Into<Input>, w: &Matrix) -> Matmul {
    let x = x.into();
    assert_eq!(x.rows.width, w.columns, "a value of x for each column");
    let y = x.rows;
    Matmul { x, w: w.clone(), y, activation: Activation::None, epilogue: Epilogue::Store }
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

/// x normalized by `by`, as part of the matmul that reads it.
pub fn normed(x: Rows, by: &NormWeights) -> Input {
    assert_eq!(x.width, by.weight.len, "a weight for each value of x");
    Input { rows: x, norm: Some(*by) }
}

/// y = epilogue(W x + bias)
pub struct Matmul {
    x: Input,
    w: Matrix,
    y: Rows,
    activation: Activation,
    epilogue: Epilogue,
}

/// What becomes of a product.
enum Epilogue {
    /// y = activation(product)
    Store,
    /// y += activation(product)
    Add,
    /// y = activation(gate) · up, where W is [gate; up], `[2n, columns]`
    Gated,
    /// y = [q; k; v], where q and k are rotated, and k and v are written into the cache
    Qkv { rope: Option<RopeKernel>, kv_write: KvWrite },
}

impl Matmul {
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }
    /// W is [gate; up], `[2n, columns]`: y = activation(gate x) · up x
    pub fn gated(self, gated: bool) -> Self {
        Self { epilogue: if gated { Epilogue::Gated } else { Epilogue::Store }, ..self }
    }
    /// Sets y. If x has a row for each row of the step and y one for each output, only the outputs are
    /// computed.
    pub fn to(self, y: Rows) -> Self {
        assert_eq!(
            self.w.rows,
            y.width * if self.is_gated() { 2 } else { 1 },
            "a row of W for each value of y"
        );
        Self { y, ..self }
    }
    /// y += …
    pub fn add_to(self, y: Rows) -> Self {
        assert_eq!(self.x.rows.per, y.per, "the residual has the rows of x");
        assert!(!self.is_gated(), "a gated product is not a residual");
        Self { epilogue: Epilogue::Add, ..self.to(y) }
    }
    /// Whether this pass can also rotate q and k and write the cache. The cache must have one part, because
    /// several would need too many bindings, and store numbers alone or in pairs. Each rotated pair must lie
    /// in one part of W.
    pub fn can_fuse_kv_write(&self, cache: &Cache) -> bool {
        let is_written_in_pairs = cache.parts.iter().all(|part| part.format.unit() <= 2);
        is_written_in_pairs
            && cache.parts.len() == 1
            && self.w.parts.iter().all(|part| part.rows.start.is_multiple_of(2))
    }
    /// y = q, k and v, where q and k are rotated by `rope_table`, and k and v are written into the cache too:
    /// what [`rope`] and [`kv_write`] do, folded into this pass.
    pub fn rope_and_cache(self, y: Rows, rope_table: Option<Buffer>, cache: &Cache) -> Self {
        assert!(self.can_fuse_kv_write(cache), "a cache that one pass can write");
        let turned = y.width / cache.head_dim - cache.n_kv_heads;
        let rope = rope_table.map(|table| rope(y, table, turned, cache.head_dim));
        Self { epilogue: Epilogue::Qkv { rope, kv_write: kv_write(y, cache) }, ..self.to(y) }
    }

    fn is_gated(&self) -> bool {
        matches!(self.epilogue, Epilogue::Gated)
    }

    /// Whether y has only the rows of x that are outputs.
    fn picks_outputs(&self) -> bool {
        self.x.rows.per == Per::Row && self.y.per == Per::Output
    }
}

impl Kernel for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }
    fn note(&self) -> String {
        let mut note = format!("{}×{} {}", self.w.rows, self.w.columns, self.w.formats());
        let norm = self.x.norm.map(|n| format!("{:?} norm", n.kind).to_lowercase());
        let cached = match &self.epilogue {
            Epilogue::Qkv { kv_write, .. } => format!("kv_write{}", kv_write.cache().note()),
            _ => String::new(),
        };
        for (on, word) in [
            (norm.is_some(), norm.unwrap_or_default()),
            (self.w.bias.is_some(), "bias".to_owned()),
            (self.activation != Activation::None, format!("{:?}", self.activation).to_lowercase()),
            (self.is_gated(), "gated".to_owned()),
            (matches!(self.epilogue, Epilogue::Add), "added".to_owned()),
            (self.picks_outputs(), "outputs".to_owned()),
            (matches!(self.epilogue, Epilogue::Qkv { rope: Some(_), .. }), "rope".to_owned()),
            (!cached.is_empty(), cached),
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
        let (table, cache) = match &self.epilogue {
            Epilogue::Qkv { rope, kv_write } => {
                (rope.as_ref().map(|rope| rope.table), Some(kv_write.parts()[0].buffer))
            }
            _ => (None, None),
        };
        std::iter::once(Use::Read(self.x.rows.buffer))
            .chain(parts)
            .chain(vectors.map(Use::Read))
            .chain(table.map(Use::Read))
            .chain([Use::Write(self.y.buffer)])
            .chain(cache.map(Use::Write))
            .collect()
    }
    fn dispatches(&self, target: &Target) -> Vec<Dispatch> {
        self.w.parts.iter().flat_map(|part| self.dispatches_of(target, part)).collect()
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
        self.run_plain(memory, step);
    }
    fn run_fast(&self, memory: &Memory, step: &Step, phase: Phase, cpu: &Cpu) {
        self.run_simd(memory, step, phase, cpu);
    }
}
