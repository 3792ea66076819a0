//! How much a step asks for, and through which plan: what grids, costs and sizes of buffers follow from.

/// What a step does; a plan is written for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Tokens of prompts, many at once.
    Prefill,
    /// The next token of up to eight sequences.
    Decode,
}

impl Phase {
    pub const ALL: [Self; 2] = [Self::Prefill, Self::Decode];
}

/// How much a step asks for: what grids and costs follow from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    pub rows: u32,
    pub outputs: u32,
    /// As many as outputs, or none.
    pub targets: u32,
    /// As many as outputs, where logits of any sequence change.
    pub adjusted: u32,
    /// The most positions that any row attends to.
    pub context: u32,
}
