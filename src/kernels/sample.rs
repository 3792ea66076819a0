use super::{STEP, reduce};
use crate::{
    buffers::{Buffer, Buffers, Content, Per, Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    sampling::{Draw, Picked},
    shader::Program,
    simd::Cpu,
    step::{Row, Step},
    workload::{Phase, Workload},
};

/// `ids[sequence]` = the next token of each sequence, drawn from the `logits` (`[outputs, vocab]`) of its
/// last output by the sampling settings in the step. With mirostat, also writes the token's probability into
/// the second half of `ids`.
pub fn sample(logits: Rows, candidates: Candidates, ids: Buffer) -> Sample {
    assert_eq!(logits.per, Per::Output, "logits of outputs");
    assert_eq!(candidates.slices, logits.width.div_ceil(SLICE), "candidates of as many logits");
    Sample { logits, candidates, ids }
}

/// Logits in a slice, candidates that are stored per slice, and other words per slice, as in
/// shaders/sample/candidates.wgsl.
const SLICE: u32 = 1024;
const MAX: u32 = 128;
const TOLD: u32 = 6;

/// The buffer in which the sampling programs of a device pass on to each other the likely tokens in each
/// slice of an output's logits.
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    buffer: Buffer,
    slices: u32,
}

impl Candidates {
    /// Declares the buffer for outputs of `vocab_size` logits.
    pub fn declare(buffers: &mut Buffers, vocab_size: u32) -> Self {
        let slices = vocab_size.div_ceil(SLICE);
        let stride = slices * (TOLD + 2 * MAX);
        let content = Content::Partials { per: Per::Output, stride };
        Self { buffer: buffers.declare("candidates", content), slices }
    }
}

pub struct Sample {
    logits: Rows,
    candidates: Candidates,
    ids: Buffer,
}

impl Kernel for Sample {
    fn name(&self) -> &'static str {
        "sample"
    }
    fn uses(&self) -> Vec<Use> {
        vec![Use::Read(self.logits.buffer), Use::Write(self.candidates.buffer), Use::Write(self.ids)]
    }
    fn dispatches(&self, target: &Target) -> Vec<Dispatch> {
        let random = ("random", include_str!("../../shaders/sample/random.wgsl"));
        let dispatch = |name, source, imports: &[_], uses: &[Use], groups| Dispatch {
            program: Program {
                name,
                source,
                imports: [
                    &[
                        STEP,
                        reduce(target),
                        ("candidates", include_str!("../../shaders/sample/candidates.wgsl")),
                    ],
                    imports,
                ]
                .concat(),
                constants: vec![
                    ("VOCAB", self.logits.width.into()),
                    ("STRIDE", self.logits.stride().into()),
                    ("SLICES", self.candidates.slices.into()),
                ],
            },
            uses: uses.to_vec(),
            grid: Grid::per(Per::Output, groups),
        };
        let (logits, candidates) = (Use::Read(self.logits.buffer), self.candidates.buffer);
        let slices = self.candidates.slices;
        let gathered = [logits, Use::Write(candidates)];
        vec![
            dispatch(
                "sample_slices",
                include_str!("../../shaders/sample/slices.wgsl"),
                &[],
                &gathered,
                slices,
            ),
            dispatch(
                "sample_gather",
                include_str!("../../shaders/sample/gather.wgsl"),
                &[random],
                &gathered,
                slices,
            ),
            dispatch(
                "sample_draw",
                include_str!("../../shaders/sample/draw.wgsl"),
                &[random],
                &[logits, Use::Read(candidates), Use::Write(self.ids)],
                1,
            ),
        ]
    }
    fn cost(&self, load: &Workload) -> Cost {
        let values = u64::from(load.outputs) * u64::from(self.logits.width);
        Cost { bytes: 4 * values, flops: values }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        self.pick(memory, step, |outputs, pick| outputs.into_iter().map(pick).collect());
    }
    fn run_fast(&self, memory: &Memory, step: &Step, _: Phase, cpu: &Cpu) {
        self.pick(memory, step, |outputs, pick| {
            // A logit takes some operations, more where tokens are drawn.
            let operations = 8 * outputs.len() as u64 * u64::from(self.logits.width);
            cpu.map(operations, outputs.into_iter(), pick)
        });
    }
}

/// An output: its row, how its sequence's token is drawn, and its logits.
type Output<'a> = (Row, Draw, &'a [f32]);

impl Sample {
    /// Picks the tokens, by whatever `map` runs a function on all outputs with.
    fn pick(
        &self,
        memory: &Memory,
        step: &Step,
        map: impl FnOnce(Vec<Output>, &(dyn Fn(Output) -> Picked + Sync)) -> Vec<Picked>,
    ) {
        let logits = memory.read(self.logits.buffer);
        let outputs = step.outputs.iter().zip(logits.chunks(self.logits.stride() as usize));
        let outputs: Vec<Output> = outputs
            .map(|(output, logits)| {
                let row = step.rows[*output as usize];
                (row, step.draw_of(row.sequence), &logits[..self.logits.width as usize])
            })
            .collect();
        let all = map(outputs.clone(), &|(row, draw, logits)| draw.pick(logits, row.position + 1));
        let mut ids = memory.ids_mut(self.ids);
        let probabilities = ids.len() / 2;
        for ((row, draw, _), picked) in outputs.into_iter().zip(all) {
            ids[row.sequence as usize] = picked.id;
            if draw.mirostat_min_p > 0.0 {
                ids[probabilities + row.sequence as usize] = picked.probability.to_bits();
            }
        }
    }
}
