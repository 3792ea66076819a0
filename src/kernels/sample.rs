use super::{Cost, Dispatch, Grid, Kernel, STEP, Splits, Target};
use crate::{
    memory::Memory,
    plan::{Buffer, Per, Rows, Use},
    sampling::greedy,
    shader::Program,
    step::{Load, Step},
};

/// `ids[sequence]` = the id of the highest logit of the sequence's (last) output, the lowest id of those that share it
pub fn sample(logits: Rows, ids: Buffer) -> Sample {
    assert_eq!(logits.per, Per::Output, "logits of outputs");
    Sample { logits, ids }
}

pub struct Sample {
    logits: Rows,
    ids: Buffer,
}

impl Kernel for Sample {
    fn name(&self) -> &'static str {
        "sample"
    }
    fn note(&self) -> String {
        "argmax".to_owned()
    }
    fn uses(&self) -> Vec<Use> {
        vec![Use::Read(self.logits.buffer), Use::Write(self.ids)]
    }
    fn dispatches(&self, _: &Target) -> Vec<Dispatch> {
        let program = Program {
            name: "sample",
            source: include_str!("../../shaders/sample.wgsl"),
            imports: vec![STEP],
            constants: vec![("VOCAB", self.logits.width.into()), ("STRIDE", self.logits.stride().into())],
        };
        let grid = Grid { groups: 1, per: Per::Output, rows: 1, splits: Splits::Whole };
        vec![Dispatch { program, uses: self.uses(), grid }]
    }
    fn cost(&self, load: &Load) -> Cost {
        let values = u64::from(load.outputs) * u64::from(self.logits.width);
        Cost { bytes: 4 * values, flops: values }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let logits = memory.read(self.logits.buffer);
        let mut ids = memory.ids_mut(self.ids);
        for (output, logits) in step.outputs.iter().zip(logits.chunks(self.logits.stride() as usize)) {
            let best = greedy(&logits[..self.logits.width as usize]);
            ids[step.rows[*output as usize].sequence as usize] = best;
        }
    }
}
