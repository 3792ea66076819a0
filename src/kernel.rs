//! What a pass computes: its operands, the programs that a device runs for it, what it costs, and its
//! definition in Rust.

use crate::{
    buffers::{Per, Use},
    capabilities::Capabilities,
    memory::Memory,
    shader::Program,
    simd::Cpu,
    step::Step,
    workload::{Phase, Workload},
};

/// One pass of a plan.
pub trait Kernel: Send + Sync {
    /// The kernel's name in a listing of a plan.
    fn name(&self) -> &'static str;
    /// What a listing says besides the operands, such as shapes and formats.
    fn note(&self) -> String {
        String::new()
    }
    /// Every buffer that the pass reads and writes.
    fn uses(&self) -> Vec<Use>;
    /// The dispatches that a device runs for the pass: mostly one; several if a matrix or the KV cache has
    /// several parts, or if the kernel takes several programs.
    fn dispatches(&self, target: &Target) -> Vec<Dispatch>;
    /// The memory traffic and the arithmetic of the pass under a load.
    fn cost(&self, load: &Workload) -> Cost;
    /// Computes the pass on the CPU, in plain Rust: the definition.
    fn run(&self, memory: &Memory, step: &Step);
    /// Computes the same with SIMD and threads; tested against [`Kernel::run`].
    fn run_fast(&self, memory: &Memory, step: &Step, phase: Phase, cpu: &Cpu) {
        let _ = (phase, cpu);
        self.run(memory, step);
    }
}

/// What dispatches are made for: a device's capabilities, and prefill or decode.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub can: &'a Capabilities,
    pub phase: Phase,
}

/// A program, the buffers bound at group 1 in order of binding, and the grid.
///
/// The grid is data rather than a function of the kernel, so that a test can check it against a device's
/// limits. Every grid is "n workgroups per m rows".
#[derive(Debug)]
pub struct Dispatch {
    pub program: Program,
    pub uses: Vec<Use>,
    pub grid: Grid,
}

/// `groups` workgroups per `rows` rows (or outputs, …: see [`Per`]), and per split of the context for
/// [`Splits::Each`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub groups: u32,
    pub per: Per,
    pub rows: u32,
    pub splits: Splits,
    pub only: Only,
}

/// For which numbers of rows (or outputs, …) a grid runs. A kernel may have a program for one row, which is
/// what a single user waits for, and another for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    Any,
    One,
    Several,
}

impl Only {
    fn includes(self, rows: u32) -> bool {
        match self {
            Self::Any => true,
            Self::One => rows == 1,
            Self::Several => rows > 1,
        }
    }
}

/// How a grid depends on the length of the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Splits {
    /// It does not.
    Whole,
    /// The groups run once per split of this many positions.
    Each(u32),
    /// The groups run only if the context is longer than this many positions.
    Beyond(u32),
}

impl Grid {
    pub fn per_row(groups: u32) -> Self {
        Self::per(Per::Row, groups)
    }
    pub fn per(per: Per, groups: u32) -> Self {
        Self { groups, per, rows: 1, splits: Splits::Whole, only: Only::Any }
    }

    /// The workgroups to dispatch, `[x, y, z]`: the groups folded over x and y so that x is at most `most`,
    /// the rows along z. None if there is nothing to do.
    pub fn workgroups(&self, load: &Workload, most: u32) -> Option<[u32; 3]> {
        let groups = match self.splits {
            Splits::Whole => self.groups,
            Splits::Each(positions) => self.groups * load.context.div_ceil(positions),
            Splits::Beyond(positions) if load.context > positions => self.groups,
            Splits::Beyond(_) => 0,
        };
        let rows = self.per.count(load);
        let (y, z) = (groups.div_ceil(most), rows.div_ceil(self.rows));
        (y > 0 && z > 0 && self.only.includes(rows)).then(|| [groups.div_ceil(y), y, z])
    }
}

/// The memory traffic and the arithmetic of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes that the pass must read from or write to memory, each counted once.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}
