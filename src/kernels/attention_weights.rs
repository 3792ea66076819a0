use super::{
    heads::{Heads, reach, softmax},
    kv::{Cache, CachePart},
    reduce,
};
use crate::{
    buffers::{Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    shader::Program,
    step::Step,
    weights::Vector,
    workload::Workload,
};

/// y = the attention weights, softmax(q k · scale), for inspection: `[rows, n_heads · context]`, with zeros
/// at the positions that a row does not attend to. The operands are those of [`super::attention`].
pub fn attention_weights(
    qkv: Rows,
    cache: &Cache,
    scalars: Vector,
    n_heads: u32,
    y: Rows,
) -> AttentionWeights {
    assert_eq!(y.width % n_heads, 0, "as many positions for each head");
    AttentionWeights { heads: Heads::new(n_heads, qkv, cache, scalars), y }
}

pub struct AttentionWeights {
    heads: Heads,
    y: Rows,
}

impl AttentionWeights {
    /// Positions per head in a row of y.
    fn context(&self) -> u32 {
        self.y.width / self.heads.count
    }
}

impl Kernel for AttentionWeights {
    fn name(&self) -> &'static str {
        "weights"
    }
    fn note(&self) -> String {
        format!("attention's, {} heads", self.heads.count)
    }
    fn uses(&self) -> Vec<Use> {
        self.heads.uses().chain([Use::Write(self.y.buffer)]).collect()
    }
    fn dispatches(&self, target: &Target) -> Vec<Dispatch> {
        let dispatch = |part: &CachePart| {
            let mut constants = self.heads.constants(part, self.y);
            constants.extend([("HEADS", self.heads.of(part).into()), ("CONTEXT", self.context().into())]);
            let mut imports = self.heads.imports(part);
            imports.push(reduce(target));
            Dispatch {
                program: Program {
                    name: "attention_weights",
                    source: include_str!("../../shaders/attention/weights.wgsl"),
                    imports,
                    constants,
                },
                uses: self.heads.bound(part, self.y),
                grid: Grid::per_row(self.heads.of(part)),
            }
        };
        self.heads.cache.parts.iter().map(dispatch).collect()
    }
    fn cost(&self, load: &Workload) -> Cost {
        let (rows, context) = (u64::from(load.rows), u64::from(load.context));
        let weights = rows * u64::from(self.heads.count) * context;
        let bytes = context * self.heads.cache.slot_bytes() / 2 + 4 * weights;
        Cost { bytes, flops: 2 * weights * u64::from(self.heads.dim()) }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let dim = self.heads.dim() as usize;
        let [scale, window] = self.heads.scalars(memory);
        let (qkv, mut y) = (memory.read(self.heads.qkv.buffer), memory.write(self.y.buffer));
        let rows = qkv.chunks(self.heads.qkv.stride() as usize).zip(y.chunks_mut(self.y.stride() as usize));
        for (row, (qkv, y)) in step.rows.iter().zip(rows) {
            let seen = reach(step, row, window);
            for (head, y) in (0..self.heads.count).zip(y.chunks_mut(self.context() as usize)) {
                let q = &qkv[head as usize * dim..][..dim];
                let (kv_head, _, part) = self.heads.part_of(head);
                let cache = memory.read(part.buffer);
                y.fill(0.0);
                let weights = &mut y[seen.start as usize..seen.end as usize];
                for (weight, p) in weights.iter_mut().zip(seen.clone()) {
                    let key = part.key(&cache, kv_head, step.slot(row.sequence, p));
                    *weight = q.iter().zip(&key).map(|(q, k)| q * scale * k).sum();
                }
                softmax(weights);
            }
        }
    }
}
