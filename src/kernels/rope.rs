use super::{PAIR, STEP};
use crate::{
    architecture::Rope,
    buffers::{Buffer, Contents, Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    shader::Program,
    step::Step,
    workload::Workload,
};

/// The table of rotary position embeddings: (cos, sin) of the angle for every position and pair, times the
/// model's attention scaling, `[positions, pairs, 2]`.
///
/// The host computes cos and sin, in f64, because WGSL guarantees little precision for them. The angles are
/// products of f32, as in transformers and so in training: at angles of thousands of turns their rounding
/// error exceeds that of cos and sin.
pub struct RopeTable {
    frequencies: Vec<f32>,
    scale: f64,
    positions: u32,
}

impl RopeTable {
    pub fn new(rope: &Rope, head_dim: u32, positions: u32) -> Self {
        let (frequencies, scale) = rope.frequencies(head_dim);
        Self { frequencies, scale, positions }
    }
}

impl Contents for RopeTable {
    fn rows(&self) -> usize {
        self.positions as usize
    }
    fn row_bytes(&self) -> usize {
        self.frequencies.len() * 8
    }
    fn fill(&self, first: usize, out: &mut [u8]) {
        for (position, row) in out.chunks_mut(self.row_bytes()).enumerate() {
            for (frequency, pair) in self.frequencies.iter().zip(row.as_chunks_mut::<8>().0) {
                let angle = f64::from((first + position) as f32 * frequency);
                pair[..4].copy_from_slice(&((angle.cos() * self.scale) as f32).to_le_bytes());
                pair[4..].copy_from_slice(&((angle.sin() * self.scale) as f32).to_le_bytes());
            }
        }
    }
}

/// Rotary position embedding: rotates the pairs of values in the first `heads` heads of `qkv` (those of q,
/// then of k) by the angles for the row's position, in place. `table` is a [`RopeTable`].
pub fn rope(qkv: Rows, table: Buffer, heads: u32, head_dim: u32) -> RopeKernel {
    assert!(heads * head_dim <= qkv.width, "{heads} heads of {head_dim} in {} values", qkv.width);
    RopeKernel { qkv, table, heads, pairs: head_dim / 2 }
}

pub struct RopeKernel {
    qkv: Rows,
    pub(super) table: Buffer,
    heads: u32,
    /// Pairs of values in a head.
    pub(super) pairs: u32,
}

impl Kernel for RopeKernel {
    fn name(&self) -> &'static str {
        "rope"
    }
    fn uses(&self) -> Vec<Use> {
        vec![Use::Read(self.table), Use::Write(self.qkv.buffer)]
    }
    fn dispatches(&self, _: &Target) -> Vec<Dispatch> {
        let program = Program {
            name: "rope",
            source: include_str!("../../shaders/rope.wgsl"),
            imports: vec![STEP, PAIR],
            constants: vec![
                ("HEADS", self.heads.into()),
                ("PAIRS", self.pairs.into()),
                ("STRIDE", self.qkv.stride().into()),
            ],
        };
        let groups = (self.heads * self.pairs).div_ceil(64);
        vec![Dispatch { program, uses: self.uses(), grid: Grid::per_row(groups) }]
    }
    fn cost(&self, load: &Workload) -> Cost {
        let pairs = u64::from(load.rows) * u64::from(self.heads * self.pairs);
        Cost { bytes: 16 * pairs + 8 * u64::from(load.rows * self.pairs), flops: 6 * pairs }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let pairs = self.pairs as usize;
        let table = memory.loaded(self.table);
        let mut qkv = memory.write(self.qkv.buffer);
        for (row, qkv) in step.rows.iter().zip(qkv.chunks_mut(self.qkv.stride() as usize)) {
            let turns = table[row.position as usize * pairs * 2..][..pairs * 2].as_chunks::<2>().0;
            for head in qkv.chunks_mut(pairs * 2).take(self.heads as usize) {
                for ([cos, sin], pair) in turns.iter().zip(head.as_chunks_mut::<2>().0) {
                    let [a, b] = *pair;
                    *pair = [a * cos - b * sin, a * sin + b * cos];
                }
            }
        }
    }
}
