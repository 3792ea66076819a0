use super::{STEP, flag};
use crate::{
    architecture::Activation,
    buffers::{Rows, Use},
    kernel::{Cost, Dispatch, Grid, Kernel, Target},
    memory::Memory,
    shader::Program,
    step::Step,
    workload::Workload,
};

/// y = activation(x), or, where x is [gate; up], `[rows, 2n]`, y = activation(gate) · up, `[rows, n]`. Mostly
/// this is folded into the product that gives x; it is a pass of its own where something is added to that.
pub fn activate(x: Rows, activation: Activation, y: Rows) -> Activate {
    let is_gated = x.width == 2 * y.width;
    assert!(is_gated || x.width == y.width, "a value of x, or a gate and a value, for each of y");
    Activate { x, activation, is_gated, y }
}

pub struct Activate {
    x: Rows,
    activation: Activation,
    is_gated: bool,
    y: Rows,
}

impl Kernel for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }
    fn note(&self) -> String {
        let name = format!("{:?}", self.activation).to_lowercase();
        if self.is_gated { format!("{name}, gated") } else { name }
    }
    fn uses(&self) -> Vec<Use> {
        vec![Use::Read(self.x.buffer), Use::Write(self.y.buffer)]
    }
    fn dispatches(&self, _: &Target) -> Vec<Dispatch> {
        let program = Program {
            name: "activate",
            source: include_str!("../../shaders/activate.wgsl"),
            imports: vec![STEP, ("activation", self.activation.shader())],
            constants: vec![
                ("WIDTH", self.y.width.into()),
                ("STRIDE_X", self.x.stride().into()),
                ("STRIDE_Y", self.y.stride().into()),
                ("GATED", flag(self.is_gated)),
            ],
        };
        vec![Dispatch { program, uses: self.uses(), grid: Grid::per_row(self.y.width.div_ceil(64)) }]
    }
    fn cost(&self, load: &Workload) -> Cost {
        let rows = u64::from(load.rows);
        let values = rows * u64::from(self.y.width);
        Cost { bytes: 4 * (values + rows * u64::from(self.x.width)), flops: 8 * values }
    }
    fn run(&self, memory: &Memory, step: &Step) {
        let (x, mut y) = (memory.read(self.x.buffer), memory.write(self.y.buffer));
        let rows = x.chunks(self.x.stride() as usize).zip(y.chunks_mut(self.y.stride() as usize));
        let width = self.y.width as usize;
        for (x, y) in rows.take(step.rows.len()) {
            let y = &mut y[..width];
            y.copy_from_slice(&x[..width]);
            self.activation.apply(y);
            if self.is_gated {
                y.iter_mut().zip(&x[width..]).for_each(|(y, up)| *y *= up);
            }
        }
    }
}
