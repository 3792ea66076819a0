use super::STEP;
use crate::{
    buffers::{Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    shader::Program,
    step::{FEATURE, Step},
    workload::Workload,
};

/// `y = features` in the rows whose token is [`FEATURE`], which take an image feature instead of a token
/// embedding. Both are `[rows, hidden]`.
pub fn splice(features: Rows, y: Rows) -> Splice {
    assert_eq!((features.width, features.per), (y.width, y.per), "features are of the residual's shape");
    Splice { features, y }
}

pub struct Splice {
    features: Rows,
    y: Rows,
}

impl Kernel for Splice {
    fn name(&self) -> &'static str {
        "splice"
    }
    fn uses(&self) -> Vec<Use> {
        vec![Use::Read(self.features.buffer), Use::Write(self.y.buffer)]
    }
    fn dispatches(&self, _: &Target) -> Vec<Dispatch> {
        vec![Dispatch {
            program: Program {
                name: "splice",
                source: include_str!("../../shaders/splice.wgsl"),
                imports: vec![STEP],
                constants: vec![("STRIDE", self.y.stride().into())],
            },
            uses: self.uses(),
            grid: Grid::per_row(self.y.stride().div_ceil(64)),
        }]
    }
    fn cost(&self, load: &Workload) -> Cost {
        Cost { bytes: u64::from(load.rows) * 8 * u64::from(self.y.width), flops: 0 }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let stride = self.y.stride() as usize;
        let (features, mut y) = (memory.read(self.features.buffer), memory.write(self.y.buffer));
        for (row, (feature, y)) in step.rows.iter().zip(features.chunks(stride).zip(y.chunks_mut(stride))) {
            if row.token == FEATURE {
                y.copy_from_slice(feature);
            }
        }
    }
}
