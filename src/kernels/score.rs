use super::{STEP, reduce};
use crate::{
    buffers::{Per, Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    sampling::logprob,
    shader::Program,
    step::Step,
    workload::Workload,
};

/// y = ln softmax(logits)\[target\] for each output that the step gives a target for, in nats. `logits` is
/// `[outputs, vocab]`, y `[outputs, 1]`.
pub fn score(logits: Rows, y: Rows) -> Score {
    assert_eq!((logits.per, y.per, y.width), (Per::Output, Per::Target, 1), "a value for each target");
    Score { logits, y }
}

pub struct Score {
    logits: Rows,
    y: Rows,
}

impl Kernel for Score {
    fn name(&self) -> &'static str {
        "score"
    }
    fn uses(&self) -> Vec<Use> {
        vec![Use::Read(self.logits.buffer), Use::Write(self.y.buffer)]
    }
    fn dispatches(&self, target: &Target) -> Vec<Dispatch> {
        let program = Program {
            name: "score",
            source: include_str!("../../shaders/score.wgsl"),
            imports: vec![STEP, reduce(target)],
            constants: vec![
                ("VOCAB", self.logits.width.into()),
                ("STRIDE", self.logits.stride().into()),
                ("Y_STRIDE", self.y.stride().into()),
            ],
        };
        let grid = Grid::per(Per::Target, 1);
        vec![Dispatch { program, uses: self.uses(), grid }]
    }
    fn cost(&self, load: &Workload) -> Cost {
        let values = u64::from(load.targets) * u64::from(self.logits.width);
        Cost { bytes: 4 * values, flops: 3 * values }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let (logits, mut y) = (memory.read(self.logits.buffer), memory.write(self.y.buffer));
        let logits = logits.chunks(self.logits.stride() as usize);
        let y = y.chunks_mut(self.y.stride() as usize);
        for ((target, logits), y) in step.targets.iter().zip(logits).zip(y) {
            y[0] = logprob(&logits[..self.logits.width as usize], *target) as f32;
        }
    }
}
