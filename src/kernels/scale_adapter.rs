use super::STEP;
use crate::{
    buffers::{Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    shader::Program,
    step::Step,
    workload::Workload,
};
use std::ops::Range;

/// Multiplies the values `part` of each row of `x`, `[rows, rank]`, by the scale that the row's sequence has
/// for an adapter, in place: between the two factors of a low-rank change of a matrix.
pub fn scale_adapter(x: Rows, part: Range<u32>, adapter: u32) -> ScaleAdapter {
    assert!(part.end <= x.width, "values of a row");
    ScaleAdapter { x, part, adapter }
}

pub struct ScaleAdapter {
    x: Rows,
    part: Range<u32>,
    adapter: u32,
}

impl Kernel for ScaleAdapter {
    fn name(&self) -> &'static str {
        "scale_adapter"
    }
    fn note(&self) -> String {
        format!("adapter {}, {:?}", self.adapter, self.part)
    }
    fn uses(&self) -> Vec<Use> {
        vec![Use::Write(self.x.buffer)]
    }
    fn dispatches(&self, _: &Target) -> Vec<Dispatch> {
        let count = self.part.len() as u32;
        let program = Program {
            name: "scale_adapter",
            source: include_str!("../../shaders/scale_adapter.wgsl"),
            imports: vec![STEP],
            constants: vec![
                ("FIRST", self.part.start.into()),
                ("COUNT", count.into()),
                ("STRIDE", self.x.stride().into()),
                ("ADAPTER", self.adapter.into()),
            ],
        };
        vec![Dispatch { program, uses: self.uses(), grid: Grid::per_row(count.div_ceil(64)) }]
    }
    fn cost(&self, load: &Workload) -> Cost {
        let values = u64::from(load.rows) * self.part.len() as u64;
        Cost { bytes: 8 * values, flops: values }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let mut x = memory.write(self.x.buffer);
        for (row, x) in step.rows.iter().zip(x.chunks_mut(self.x.stride() as usize)) {
            let scale = step.adapter_scale(row.sequence, self.adapter);
            x[self.part.start as usize..self.part.end as usize].iter_mut().for_each(|value| *value *= scale);
        }
    }
}
