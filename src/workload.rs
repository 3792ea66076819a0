//! The amount of work in a step, and its plan. Grids, costs and buffer sizes follow from these.

/// The kind of a step. There is one plan for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Many prompt tokens at once.
    Prefill,
    /// The next token of a few sequences, at most eight in an engine.
    Decode,
}

impl Phase {
    pub const ALL: [Self; 2] = [Self::Prefill, Self::Decode];
}

/// The amount of work in a step. Grids and costs follow from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    pub rows: u32,
    pub outputs: u32,
    /// The number of outputs with a target: all outputs or none.
    pub targets: u32,
    /// The number of outputs if the logits of any sequence change, else 0.
    pub adjusted: u32,
    /// The most positions that any row attends to.
    pub context: u32,
}
