use super::{Cost, Dispatch, Grid, Kernel, STEP, Splits, Target, reduce};
use crate::{
    memory::Memory,
    plan::{Buffer, Per, Rows, Use},
    shader::Program,
    step::{Load, Row, Step},
};

/// `ids[sequence]` = the token that follows the sequence's (last) output, picked from its logits as the step says
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
    fn uses(&self) -> Vec<Use> {
        vec![Use::Read(self.logits.buffer), Use::Write(self.ids)]
    }
    fn dispatches(&self, target: &Target) -> Vec<Dispatch> {
        let program = Program {
            name: "sample",
            source: include_str!("../../shaders/sample.wgsl"),
            imports: vec![STEP, reduce(target), ("random", include_str!("../../shaders/random.wgsl"))],
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
            let Row { position, sequence, .. } = step.rows[*output as usize];
            let logits = &logits[..self.logits.width as usize];
            ids[sequence as usize] = step.sampling_of(sequence).pick(logits, position + 1);
        }
    }
}
