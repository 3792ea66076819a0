use super::STEP;
use crate::{
    buffers::{Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    shader::Program,
    step::Step,
    workload::Workload,
};

/// The most values that are turned together.
const MAX_SIZE: u32 = 64;

/// Turns the heads in `x`, `[rows, heads · head_dim]`, by a Hadamard matrix over the square root of its size,
/// in place: of as many values as the largest power of two in `head_dim` says, at most 64. The matrix is its
/// own inverse, and products of two heads stay as they are. It spreads what is far from zero over all of a
/// head, which is then quantised with less error (QuaRot, Ashkboos et al. 2024).
pub fn hadamard(x: Rows, head_dim: u32) -> Hadamard {
    let size = (1 << head_dim.trailing_zeros()).min(MAX_SIZE);
    assert!(x.width.is_multiple_of(head_dim), "whole heads");
    Hadamard { x, size }
}

pub struct Hadamard {
    x: Rows,
    size: u32,
}

impl Kernel for Hadamard {
    fn name(&self) -> &'static str {
        "hadamard"
    }
    fn note(&self) -> String {
        self.size.to_string()
    }
    fn uses(&self) -> Vec<Use> {
        vec![Use::Write(self.x.buffer)]
    }
    fn dispatches(&self, _: &Target) -> Vec<Dispatch> {
        let count = self.x.width / self.size;
        let program = Program {
            name: "hadamard",
            source: include_str!("../../shaders/hadamard.wgsl"),
            imports: vec![STEP],
            constants: vec![
                ("SIZE", self.size.into()),
                ("COUNT", count.into()),
                ("STRIDE", self.x.stride().into()),
                ("SCALE", f64::from(self.size).sqrt().recip()),
            ],
        };
        vec![Dispatch { program, uses: self.uses(), grid: Grid::per_row(count) }]
    }
    fn cost(&self, load: &Workload) -> Cost {
        let values = u64::from(load.rows) * u64::from(self.x.width);
        Cost { bytes: 8 * values, flops: values * u64::from(self.size) }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let mut x = memory.write(self.x.buffer);
        for row in x.chunks_mut(self.x.stride() as usize).take(step.rows.len()) {
            row[..self.x.width as usize].chunks_mut(self.size as usize).for_each(turn);
        }
    }
}

/// The fast Walsh-Hadamard transform, over the square root of the size.
fn turn(values: &mut [f32]) {
    let scale = (values.len() as f32).sqrt().recip();
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    values.iter_mut().for_each(|value| *value *= scale);
}
