use super::{Cost, Dispatch, Grid, Kernel, STEP, Splits, Target};
use crate::{
    memory::Memory,
    plan::{Per, Rows, Use},
    shader::Program,
    step::{Load, Step},
};

/// logits of tokens that were there before, lowered as the step says
pub fn penalize(logits: Rows) -> Penalize {
    assert_eq!(logits.per, Per::Output, "logits of outputs");
    Penalize { logits }
}

pub struct Penalize {
    logits: Rows,
}

impl Kernel for Penalize {
    fn name(&self) -> &'static str {
        "penalize"
    }
    fn uses(&self) -> Vec<Use> {
        vec![Use::Write(self.logits.buffer)]
    }
    fn dispatches(&self, _: &Target) -> Vec<Dispatch> {
        let program = Program {
            name: "penalize",
            source: include_str!("../../shaders/penalize.wgsl"),
            imports: vec![STEP],
            constants: vec![("STRIDE", self.logits.stride().into())],
        };
        let grid = Grid { groups: 1, per: Per::Penalized, rows: 1, splits: Splits::Whole };
        vec![Dispatch { program, uses: self.uses(), grid }]
    }
    fn cost(&self, load: &Load) -> Cost {
        let tokens = u64::from(load.penalized) * u64::from(load.context);
        Cost { bytes: 8 * tokens, flops: 4 * tokens }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let mut logits = memory.write(self.logits.buffer);
        for (output, logits) in step.outputs.iter().zip(logits.chunks_mut(self.logits.stride() as usize)) {
            let sequence = step.rows[*output as usize].sequence;
            let penalties = step.sampling_of(sequence).penalties;
            for seen in step.seen_by(sequence) {
                let logit = &mut logits[seen.token as usize];
                *logit = penalties.apply(*logit, seen.count);
            }
        }
    }
}
