use super::STEP;
use crate::{
    buffers::{Per, Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    shader::Program,
    step::Step,
    workload::Workload,
};

/// Changes `logits` (`[outputs, vocab]`) in place: adds biases and subtracts penalties and DRY, for the
/// tokens that the step lists for each output's sequence. See [`crate::sampling::Penalties::apply`].
pub fn adjust(logits: Rows) -> Adjust {
    assert_eq!(logits.per, Per::Output, "logits of outputs");
    Adjust { logits }
}

pub struct Adjust {
    logits: Rows,
}

impl Kernel for Adjust {
    fn name(&self) -> &'static str {
        "adjust"
    }
    fn uses(&self) -> Vec<Use> {
        vec![Use::Write(self.logits.buffer)]
    }
    fn dispatches(&self, _: &Target) -> Vec<Dispatch> {
        let program = Program {
            name: "adjust",
            source: include_str!("../../shaders/adjust.wgsl"),
            imports: vec![STEP],
            constants: vec![("STRIDE", self.logits.stride().into())],
        };
        let grid = Grid::per(Per::Adjusted, 1);
        vec![Dispatch { program, uses: self.uses(), grid }]
    }
    fn cost(&self, load: &Workload) -> Cost {
        let tokens = u64::from(load.adjusted) * u64::from(load.context);
        Cost { bytes: 8 * tokens, flops: 4 * tokens }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let mut logits = memory.write(self.logits.buffer);
        for (output, logits) in step.outputs.iter().zip(logits.chunks_mut(self.logits.stride() as usize)) {
            let Some(pick) = step.picks.get(step.rows[*output as usize].sequence as usize) else { continue };
            for to in &pick.adjusted {
                let logit = &mut logits[to.token as usize];
                *logit = pick.penalties.apply(*logit, to);
            }
        }
    }
}
