//! A plan: the passes from token ids to logits, in order, over buffers known by number.
//!
//! decoder.rs writes one for each [`Phase`] of work, over the same [`Buffers`]; a backend makes what they
//! need once and then runs a [`crate::step::Step`] through one of them.

use crate::{
    buffers::{BLOCK, Buffer, Buffers, Content, Rows, Sizes, Use},
    capabilities::Capabilities,
    kernel::{Cost, Dispatch, Kernel, Target},
    shader::Program,
    workload::{Phase, Workload},
};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    ops::Range,
};

/// One line of a plan.
pub struct Pass {
    /// The layer that it belongs to; none before the first and after the last.
    pub layer: Option<u32>,
    pub mark: Option<Mark>,
    pub kernel: Box<dyn Kernel>,
}

/// A mark by which other code finds a pass ([`Plan::marked`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The product with the head's matrix, which gives the logits.
    Head,
}

/// The passes, in order.
pub struct Plan {
    pub phase: Phase,
    pub passes: Vec<Pass>,
    layer: Option<u32>,
}

impl Plan {
    pub fn new(phase: Phase) -> Self {
        Self { phase, passes: Vec::new(), layer: None }
    }
    /// What is pushed from now on belongs to this layer.
    pub fn enter(&mut self, layer: Option<u32>) {
        self.layer = layer;
    }
    pub fn push(&mut self, kernel: impl Kernel + 'static) {
        self.passes.push(Pass { layer: self.layer, mark: None, kernel: Box::new(kernel) });
    }
    /// Like [`Plan::push`], with a mark by which the pass can be found.
    pub fn push_marked(&mut self, mark: Mark, kernel: impl Kernel + 'static) {
        self.passes.push(Pass { layer: self.layer, mark: Some(mark), kernel: Box::new(kernel) });
    }
    /// The number of the pass with a mark.
    pub fn marked(&self, mark: Mark) -> Option<usize> {
        self.passes.iter().position(|pass| pass.mark == Some(mark))
    }
}

/// The buffers that the host reads and writes, by name. None: the plans have no such buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ports {
    /// `[outputs, vocab]`
    pub logits: Option<Rows>,
    /// The log-probabilities of the step's targets, `[outputs]`.
    pub scores: Option<Rows>,
    /// The hidden states of a prefill's rows after the final norm, `[rows, hidden]`.
    pub hidden: Option<Rows>,
    /// The ids picked last, one for each sequence.
    pub ids: Option<Buffer>,
    /// How much each token of a prefill attends to each position, for the layer that ran last:
    /// `[rows, heads · positions]`. Only in plans for [`crate::engine::Engine::insight`].
    pub attention_weights: Option<Rows>,
    /// The embeddings of a prefill's rows that stand for parts of images, `[rows, hidden]`. The host writes
    /// them.
    pub features: Option<Rows>,
    /// The vision encoder's input, `[positions, patch values]`: the pixels of each position's patch, by
    /// colour, then row by row. The host writes them.
    pub pixels: Option<Rows>,
    /// The vision encoder's output, `[positions, hidden]`: the embeddings of an image's tokens.
    pub encoded: Option<Rows>,
}

/// A model's plans, one for each phase that it has, and the buffers that they share.
pub struct Plans {
    pub buffers: Buffers,
    pub sizes: Sizes,
    pub plans: Vec<Plan>,
    pub ports: Ports,
}

impl Plans {
    /// The plan of a phase, which the model must have.
    pub fn of(&self, phase: Phase) -> &Plan {
        &self.plans[self.number(phase)]
    }

    /// The number of a phase's plan among the plans.
    pub fn number(&self, phase: Phase) -> usize {
        self.plans.iter().position(|plan| plan.phase == phase).expect("a phase that the model has")
    }

    /// Where the KV cache holds a block: bytes of its buffers.
    pub fn block_parts(&self, block: u32) -> Vec<(Buffer, Range<u64>)> {
        let of_buffer = |buffer| match self.buffers.content(buffer) {
            Content::Cache { stride, .. } => {
                let bytes = u64::from(BLOCK) * u64::from(*stride) * 4;
                Some((buffer, u64::from(block) * bytes..u64::from(block + 1) * bytes))
            }
            _ => None,
        };
        self.buffers.all().filter_map(of_buffer).collect()
    }

    /// Bytes of a block of the KV cache in all layers.
    pub fn block_bytes(&self) -> u64 {
        self.block_parts(0).into_iter().map(|(_, part)| part.end - part.start).sum()
    }

    /// Where a language model's logits come out, `[outputs, vocab]`.
    pub fn logits(&self) -> Rows {
        self.ports.logits.expect("a language model's plans")
    }
    /// Where the log-probabilities of a step's targets come out, `[outputs]`.
    pub fn scores(&self) -> Rows {
        self.ports.scores.expect("a language model's plans")
    }
    /// Where the hidden states of a prefill come out, `[rows, hidden]`.
    pub fn hidden(&self) -> Rows {
        self.ports.hidden.expect("a language model's plans")
    }
    /// Where the ids that were picked last are.
    pub fn ids(&self) -> Buffer {
        self.ports.ids.expect("a language model's plans")
    }

    /// Bytes that the passes of one run read and write, each counted once a pass.
    pub fn bytes(&self, phase: Phase, load: &Workload) -> u64 {
        self.of(phase).passes.iter().map(|pass| pass.kernel.cost(load).bytes).sum()
    }

    /// Bytes of weights and tables.
    pub fn weights_bytes(&self) -> u64 {
        self.buffers.total(&self.sizes, |content| matches!(content, Content::Loaded(_)))
    }

    /// Bytes of all layers' caches.
    pub fn cache_bytes(&self) -> u64 {
        self.buffers.total(&self.sizes, |content| matches!(content, Content::Cache { .. }))
    }

    /// The number of dispatches in one run of a plan for one row with a context of one position: in total,
    /// and the most in any one layer.
    pub fn dispatches(&self, phase: Phase, can: &Capabilities) -> Dispatches {
        let target = Target { can, phase };
        let load = Workload { rows: 1, outputs: 1, context: 1, ..Workload::default() };
        let (mut all, mut by_layer) = (0, BTreeMap::<_, usize>::new());
        let has_work = |pass: &&Pass| pass.kernel.cost(&load) != Cost::default();
        for pass in self.of(phase).passes.iter().filter(has_work) {
            // The CPU (its layout does not join) runs each kernel with one call, however many parts it has.
            let dispatches = if can.layout.join { pass.kernel.dispatches(&target) } else { Vec::new() };
            let run = |d: &&Dispatch| d.grid.workgroups(&load, can.max_groups).is_some();
            let count = dispatches.iter().filter(run).count().max(1);
            all += count;
            if let Some(layer) = pass.layer {
                *by_layer.entry(layer).or_default() += count;
            }
        }
        Dispatches { all, max_of_a_layer: by_layer.into_values().max().unwrap_or(0) }
    }

    /// The programs that a device runs for all plans, each once, in the order of the passes.
    pub fn programs(&self, can: &Capabilities) -> Vec<Program> {
        let (mut programs, mut known) = (Vec::new(), HashSet::new());
        for plan in &self.plans {
            let target = Target { can, phase: plan.phase };
            for dispatch in plan.passes.iter().flat_map(|pass| pass.kernel.dispatches(&target)) {
                if known.insert(dispatch.program.key()) {
                    programs.push(dispatch.program);
                }
            }
        }
        programs
    }

    /// The listing of a plan: a line a pass, with what it reads → what it writes.
    pub fn listing(&self, phase: Phase) -> impl fmt::Display + '_ {
        Listing { plan: self.of(phase), buffers: &self.buffers }
    }
}

/// How many times a device is asked to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispatches {
    pub all: usize,
    pub max_of_a_layer: usize,
}

struct Listing<'a> {
    plan: &'a Plan,
    buffers: &'a Buffers,
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (number, pass) in self.plan.passes.iter().enumerate() {
            let uses = pass.kernel.uses();
            let names = |writes: bool| {
                let of_kind = uses.iter().filter(|u| matches!(u, Use::Write(_)) == writes);
                of_kind.map(|u| self.buffers.label(u.buffer())).collect::<Vec<_>>().join(", ")
            };
            let layer = pass.layer.map_or("-".to_owned(), |l| l.to_string());
            let (name, note) = (pass.kernel.name(), pass.kernel.note());
            let line = format!("{number:4} {layer:>3} {name:10} {} → {}", names(false), names(true));
            writeln!(f, "{}", if note.is_empty() { line } else { format!("{line}  ({note})") })?;
        }
        Ok(())
    }
}
