use super::{STEP, flag, reduce};
use crate::{
    architecture::NormKind,
    buffers::{Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    shader::Program,
    simd::{Cpu, Job, Lanes, Shared2d, sum},
    step::Step,
    weights::NormWeights,
    workload::{Phase, Workload},
};

/// y = norm(x) for each row of x (`[rows, width]`): a layer norm or an RMS norm. `to` sets y, another buffer
/// of the same phase.
pub fn norm(x: Rows, by: &NormWeights) -> Norm {
    assert_eq!(x.width, by.weight.len, "a weight for each value of x");
    Norm { x, by: *by, y: x }
}

pub struct Norm {
    x: Rows,
    by: NormWeights,
    y: Rows,
}

impl Norm {
    pub fn to(self, y: Rows) -> Self {
        assert_eq!((self.x.width, self.x.per), (y.width, y.per), "a norm keeps the phase");
        Self { y, ..self }
    }
}

impl Kernel for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }
    fn note(&self) -> String {
        format!("{:?}", self.by.kind).to_lowercase()
    }
    fn uses(&self) -> Vec<Use> {
        vec![Use::Read(self.x.buffer), Use::Read(self.by.weight.buffer), Use::Write(self.y.buffer)]
    }
    fn dispatches(&self, target: &Target) -> Vec<Dispatch> {
        let program = Program {
            name: "norm",
            source: include_str!("../../shaders/norm.wgsl"),
            imports: vec![STEP, reduce(target)],
            constants: vec![
                ("WIDTH", self.x.width.into()),
                ("STRIDE", self.x.stride().into()),
                ("WEIGHT_AT", self.by.weight.at.into()),
                ("BIAS_AT", self.by.bias.map_or(0, |b| b.at).into()),
                ("EPSILON", self.by.epsilon.into()),
                ("CENTER", flag(self.by.kind == NormKind::Layer)),
                ("BIAS", flag(self.by.bias.is_some())),
            ],
        };
        vec![Dispatch { program, uses: self.uses(), grid: Grid::per(self.x.per, 1) }]
    }
    fn cost(&self, load: &Workload) -> Cost {
        let values = u64::from(self.x.per.count(load)) * u64::from(self.x.width);
        Cost { bytes: 8 * values + 4 * u64::from(self.x.width), flops: 8 * values }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let stride = self.x.stride() as usize;
        let count = self.x.per.count(&step.load()) as usize;
        let (x, mut y) = (memory.read(self.x.buffer), memory.write(self.y.buffer));
        for (x, y) in x.chunks(stride).zip(y.chunks_mut(stride)).take(count) {
            let width = self.x.width as usize;
            Normalize { by: &self.by, memory, x: &x[..width], y: &mut y[..width] }.plain();
        }
    }
    fn run_fast(&self, memory: &Memory, step: &Step, _: Phase, cpu: &Cpu) {
        let (width, stride) = (self.x.width as usize, self.x.stride() as usize);
        let count = self.x.per.count(&step.load()) as usize;
        let (x, mut y) = (memory.read(self.x.buffer), memory.write(self.y.buffer));
        let y = Shared2d::new(&mut y, stride);
        cpu.for_each(8 * (count * width) as u64, count, |row| {
            // SAFETY: each row belongs to exactly one piece.
            let y = unsafe { y.part(row, 0..width) };
            cpu.simd.run(Normalize { by: &self.by, memory, x: &x[row * stride..][..width], y });
        });
    }
}

/// y = norm(x) for one row.
pub(super) struct Normalize<'a> {
    pub by: &'a NormWeights,
    pub memory: &'a Memory,
    pub x: &'a [f32],
    pub y: &'a mut [f32],
}

impl Normalize<'_> {
    /// Computes it in plain Rust: the definition.
    pub fn plain(self) {
        let Self { by, memory, x, y } = self;
        let (weight, bias) = (by.weight.of(memory), by.bias.map(|b| b.of(memory)));
        let mean = match by.kind {
            NormKind::Layer => x.iter().sum::<f32>() / x.len() as f32,
            NormKind::Rms => 0.0,
        };
        let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / x.len() as f32;
        let scale = 1.0 / (variance + by.epsilon).sqrt();
        for (i, (x, y)) in x.iter().zip(y).enumerate() {
            *y = (x - mean) * scale * weight[i] + bias.map_or(0.0, |b| b[i]);
        }
    }
}

/// The same with SIMD.
impl Job for Normalize<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { by, memory, x, y } = self;
        let n = x.len() as f32;
        let mean = if by.kind == NormKind::Layer { sum(x) / n } else { 0.0 };
        for (x, y) in x.iter().zip(&mut *y) {
            *y = (x - mean) * (x - mean);
        }
        let scale = 1.0 / (sum(y) / n + by.epsilon).sqrt();
        let weight = by.weight.of(memory);
        for ((x, y), weight) in x.iter().zip(&mut *y).zip(weight) {
            *y = (x - mean) * scale * weight;
        }
        if let Some(bias) = by.bias {
            for (y, bias) in y.iter_mut().zip(bias.of(memory)) {
                *y += bias;
            }
        }
    }
}
