use super::{STEP, reduce};
use crate::{
    architecture::NormKind,
    buffers::{Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    shader::Program,
    simd::{Cpu, Shared2d},
    step::Step,
    weights::NormWeights,
    workload::{Phase, Workload},
};

/// Normalizes each head of q and of k by an RMS norm, in place. `by` holds the norm weights of q and of k,
/// each `[head_dim]`. q and k stand first in `qkv`, which is `[rows, (n_heads + 2 n_kv_heads) · head_dim]`.
pub fn head_norm(qkv: Rows, by: &[NormWeights; 2], n_heads: u32, n_kv_heads: u32) -> HeadNorm {
    let [q, k] = by;
    let head_dim = q.weight.len;
    assert_eq!(k.weight.len, head_dim, "heads of one width");
    assert_eq!(qkv.width, (n_heads + 2 * n_kv_heads) * head_dim, "q, k and v of such heads");
    assert!(by.iter().all(|by| by.kind == NormKind::Rms), "an RMS norm");
    assert_eq!(q.weight.buffer, k.weight.buffer, "both among the layer's vectors");
    HeadNorm { qkv, by: *by, n_heads, n_kv_heads }
}

pub struct HeadNorm {
    qkv: Rows,
    by: [NormWeights; 2],
    n_heads: u32,
    n_kv_heads: u32,
}

impl HeadNorm {
    fn head_dim(&self) -> usize {
        self.by[0].weight.len as usize
    }

    /// The number of query and key heads together.
    fn both(&self) -> u32 {
        self.n_heads + self.n_kv_heads
    }

    /// Normalizes the heads of one row.
    #[inline(always)]
    fn normalize(&self, memory: &Memory, qkv: &mut [f32]) {
        let [q, k] = self.by.each_ref().map(|by| by.weight.of(memory));
        for (number, head) in qkv.chunks_mut(self.head_dim()).take(self.both() as usize).enumerate() {
            let (weight, by) =
                if number < self.n_heads as usize { (q, &self.by[0]) } else { (k, &self.by[1]) };
            let squares: f32 = head.iter().map(|v| v * v).sum();
            let scale = 1.0 / (squares / head.len() as f32 + by.epsilon).sqrt();
            head.iter_mut().zip(weight).for_each(|(value, weight)| *value *= scale * weight);
        }
    }
}

impl Kernel for HeadNorm {
    fn name(&self) -> &'static str {
        "head_norm"
    }
    fn note(&self) -> String {
        format!("{} and {} heads of {}", self.n_heads, self.n_kv_heads, self.head_dim())
    }
    fn uses(&self) -> Vec<Use> {
        vec![Use::Read(self.by[0].weight.buffer), Use::Write(self.qkv.buffer)]
    }
    fn dispatches(&self, target: &Target) -> Vec<Dispatch> {
        let [q, k] = &self.by;
        let program = Program {
            name: "head_norm",
            source: include_str!("../../shaders/head_norm.wgsl"),
            imports: vec![STEP, reduce(target)],
            constants: vec![
                ("HEAD_DIM", q.weight.len.into()),
                ("HEADS", self.n_heads.into()),
                ("BOTH", self.both().into()),
                ("STRIDE", self.qkv.stride().into()),
                ("Q_AT", q.weight.at.into()),
                ("K_AT", k.weight.at.into()),
                ("EPSILON", q.epsilon.into()),
            ],
        };
        vec![Dispatch { program, uses: self.uses(), grid: Grid::per_row(self.both()) }]
    }
    fn cost(&self, load: &Workload) -> Cost {
        let values = u64::from(load.rows) * u64::from(self.both()) * self.head_dim() as u64;
        Cost { bytes: 8 * values, flops: 4 * values }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let mut qkv = memory.write(self.qkv.buffer);
        for (_, row) in step.rows.iter().zip(qkv.chunks_mut(self.qkv.stride() as usize)) {
            self.normalize(memory, row);
        }
    }
    fn run_fast(&self, memory: &Memory, step: &Step, _: Phase, cpu: &Cpu) {
        let (count, width) = (step.rows.len(), self.qkv.width as usize);
        let mut qkv = memory.write(self.qkv.buffer);
        let qkv = Shared2d::new(&mut qkv, self.qkv.stride() as usize);
        cpu.for_each(4 * (count * width) as u64, count, |row| {
            // SAFETY: each row belongs to exactly one piece.
            self.normalize(memory, unsafe { qkv.part(row, 0..width) });
        });
    }
}
