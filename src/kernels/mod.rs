//! The kernels: what a pass computes. A file each, with its operands, its WGSL programs and their grids, and the
//! same computation in Rust, in the shader's words: the definition that the program is tested against.

use crate::{
    capabilities::Capabilities,
    memory::Memory,
    plan::{Per, Shape, Use},
    shader::Program,
    simd::Cpu,
    step::{Load, Step},
};

mod activation;
mod adjust;
mod attention;
mod attention_weights;
mod embed;
mod head_norm;
mod heads;
mod kv_write;
mod matmul;
mod norm;
mod rope;
mod sample;
mod score;
mod splice;

pub use activation::Activation;
pub use adjust::adjust;
pub use attention::{Partials, attention};
pub use attention_weights::attention_weights;
pub use embed::{By, embed};
pub use head_norm::head_norm;
pub use kv_write::{Cache, CachePart, kv_write};
pub use matmul::{Input, matmul, normed};
pub use norm::norm;
pub use rope::{RopeTable, rope};
pub use sample::{Candidates, sample};
pub use score::score;
pub use splice::splice;

/// One pass of a plan.
pub trait Kernel: Send + Sync {
    /// The kernel's word in a listing.
    fn name(&self) -> &'static str;
    /// What a listing says beside the operands.
    fn note(&self) -> String {
        String::new()
    }
    /// Every buffer that the pass reads and writes.
    fn uses(&self) -> Vec<Use>;
    /// What a device runs for it: mostly one dispatch, several where a matrix has several parts.
    fn dispatches(&self, target: &Target) -> Vec<Dispatch>;
    /// What it moves and computes under a load.
    fn cost(&self, load: &Load) -> Cost;
    /// The plain definition.
    fn run(&self, memory: &Memory, step: &Step);
    /// The same with SIMD and threads, tested against [`Kernel::run`].
    fn run_fast(&self, memory: &Memory, step: &Step, shape: Shape, cpu: &Cpu) {
        let _ = (shape, cpu);
        self.run(memory, step);
    }
}

/// What dispatches are made for.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub can: &'a Capabilities,
    pub shape: Shape,
}

/// A program with the buffers bound at group 1, in order of binding, and its grid.
///
/// The grid is data rather than a function of the kernel: every grid so far is "so many workgroups for every so
/// many rows", which a listing can print and a test can hold to the limits of a device.
#[derive(Debug)]
pub struct Dispatch {
    pub program: Program,
    pub uses: Vec<Use>,
    pub grid: Grid,
}

/// `groups` workgroups for every `rows` rows (or outputs), and for every split of the context where there are some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub groups: u32,
    pub per: Per,
    pub rows: u32,
    pub splits: Splits,
}

/// What a grid has to do with the length of the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Splits {
    /// Nothing.
    Whole,
    /// The groups once for each so many positions.
    Each(u32),
    /// The groups only where the context is longer.
    Beyond(u32),
}

impl Grid {
    pub fn per_row(groups: u32) -> Self {
        Self { groups, per: Per::Row, rows: 1, splits: Splits::Whole }
    }

    /// The workgroups to dispatch: the groups folded over x and y, no side above `most`; the rows along z. None where
    /// there is nothing to do.
    pub fn workgroups(&self, load: &Load, most: u32) -> Option<[u32; 3]> {
        let groups = match self.splits {
            Splits::Whole => self.groups,
            Splits::Each(positions) => self.groups * load.context.div_ceil(positions),
            Splits::Beyond(positions) if load.context > positions => self.groups,
            Splits::Beyond(_) => 0,
        };
        let (y, z) = (groups.div_ceil(most), self.per.count(load).div_ceil(self.rows));
        (y > 0 && z > 0).then(|| [groups.div_ceil(y), y, z])
    }
}

/// What a pass moves and computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes that must come from or go to memory, each counted once.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}

/// The interface `step`, which every program imports.
const STEP: (&str, &str) = ("step", include_str!("../../shaders/step.wgsl"));

/// The interface `reduce`: over subgroups where the device has them, else through workgroup memory.
fn reduce(target: &Target) -> (&'static str, &'static str) {
    let source = if target.can.subgroups {
        include_str!("../../shaders/reduce/subgroup.wgsl")
    } else {
        include_str!("../../shaders/reduce/shared.wgsl")
    };
    ("reduce", source)
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}
