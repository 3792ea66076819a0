//! A plan: the passes from token ids to logits, in order, over buffers known by number.
//!
//! decoder.rs writes one for each [`Phase`] of work, over the same [`Buffers`]; a backend makes what they need
//! once and then runs a [`crate::step::Step`] through one of them.

use crate::{
    capabilities::Capabilities,
    kernels::{Cost, Dispatch, Kernel, Target},
    shader::Program,
    step::Workload,
    weights::Contents,
};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

/// A buffer of the plan, by its number in [`Buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer(pub u32);

/// How a dispatch uses a buffer that it binds. `Write` may also read what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Read(Buffer),
    Write(Buffer),
}

impl Use {
    pub fn buffer(self) -> Buffer {
        let (Self::Read(buffer) | Self::Write(buffer)) = self;
        buffer
    }
}

/// What a grid or an activation has one of for each: a token of the step, a token whose logits are wanted, or one that these give a probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    Row,
    Output,
    /// An output that a target is given for.
    Target,
    /// An output of a step that changes logits.
    Adjusted,
}

impl Per {
    pub fn count(self, load: &Workload) -> u32 {
        match self {
            Self::Row => load.rows,
            Self::Output => load.outputs,
            Self::Target => load.targets,
            Self::Adjusted => load.adjusted,
        }
    }
}

/// Activations lie a multiple of so many values apart, the gap zero, so that shaders may read a row in vectors.
pub const ALIGN: u32 = 8;

/// An activation: `width` values for each row or output of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    pub buffer: Buffer,
    pub width: u32,
    pub per: Per,
}

impl Rows {
    /// Values from one row to the next.
    pub fn stride(self) -> u32 {
        self.width.next_multiple_of(ALIGN)
    }
    /// Rows that lie close together, as they lie in the buffer.
    pub fn padded(self, values: &[f32]) -> Vec<f32> {
        let (width, stride) = (self.width as usize, self.stride() as usize);
        let mut padded = vec![0.0; values.len() / width * stride];
        for (to, from) in padded.chunks_mut(stride).zip(values.chunks(width)) {
            to[..width].copy_from_slice(from);
        }
        padded
    }
}

/// What a buffer holds, and so how large it is.
#[derive(Clone)]
pub enum Content {
    /// Filled once, before the first step, and only read: weights and tables.
    Loaded(Arc<dyn Contents>),
    /// An activation of so many f32 for each row or output.
    Activation { per: Per, stride: u32 },
    /// What the dispatches of one pass leave to each other: so many words for each row of a decode, or for each output.
    Partials { per: Per, stride: u32 },
    /// Keys and values, so many f32 for each slot of the cache.
    Cache { stride: u32 },
    /// What was sampled last, by [`crate::sampling::Picked::all`]: for each sequence an id, then for each a probability.
    Ids,
}

/// The most that a step may ask for: what buffers are sized by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens in one step, by phase: prefill, then decode.
    pub rows: [u32; 2],
    pub outputs: u32,
    pub sequences: u32,
    /// Positions that one sequence can reach.
    pub context: u32,
    /// Blocks of the cache, for all sequences together.
    pub blocks: u32,
}

impl Sizes {
    /// The most tokens in a step of any phase.
    pub fn max_rows(&self) -> u32 {
        self.rows[0].max(self.rows[1])
    }
}

struct Declared {
    label: String,
    content: Content,
}

/// The buffers of a model's plans.
#[derive(Default)]
pub struct Buffers(Vec<Declared>);

impl Buffers {
    pub fn declare(&mut self, label: impl Into<String>, content: Content) -> Buffer {
        let buffer = self.next();
        self.0.push(Declared { label: label.into(), content });
        buffer
    }

    /// The buffer that will be declared next.
    pub fn next(&self) -> Buffer {
        Buffer(self.0.len() as u32)
    }

    pub fn activation(&mut self, label: &str, per: Per, width: u32) -> Rows {
        let rows = Rows { buffer: Buffer(0), width, per };
        Rows { buffer: self.declare(label, Content::Activation { per, stride: rows.stride() }), ..rows }
    }

    pub fn all(&self) -> impl Iterator<Item = Buffer> + use<> {
        (0..self.0.len() as u32).map(Buffer)
    }
    pub fn label(&self, buffer: Buffer) -> &str {
        &self.0[buffer.0 as usize].label
    }
    pub fn content(&self, buffer: Buffer) -> &Content {
        &self.0[buffer.0 as usize].content
    }

    /// Bytes of a buffer under these sizes.
    pub fn bytes(&self, buffer: Buffer, sizes: &Sizes) -> u64 {
        match self.content(buffer) {
            Content::Loaded(contents) => contents.rows() as u64 * contents.row_bytes() as u64,
            Content::Activation { per: Per::Row, stride } => {
                u64::from(sizes.max_rows()) * u64::from(*stride) * 4
            }
            Content::Partials { per: Per::Row, stride } => {
                u64::from(sizes.rows[Phase::Decode as usize]) * u64::from(*stride) * 4
            }
            Content::Activation { stride, .. } | Content::Partials { stride, .. } => {
                u64::from(sizes.outputs) * u64::from(*stride) * 4
            }
            Content::Cache { stride } => {
                u64::from(sizes.blocks) * u64::from(crate::step::BLOCK) * u64::from(*stride) * 4
            }
            Content::Ids => u64::from(sizes.sequences) * 8,
        }
    }

    /// Bytes of all buffers of one kind under these sizes.
    pub fn total(&self, sizes: &Sizes, of: impl Fn(&Content) -> bool) -> u64 {
        self.all().filter(|b| of(self.content(*b))).map(|b| self.bytes(b, sizes)).sum()
    }
}

/// The shapes of work that a plan is recorded for.
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

/// One line of a plan.
pub struct Pass {
    /// The layer that it belongs to; none before the first and after the last.
    pub layer: Option<u32>,
    pub kernel: Box<dyn Kernel>,
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
        self.passes.push(Pass { layer: self.layer, kernel: Box::new(kernel) });
    }
}

/// A model's plans and the buffers that they share.
pub struct Plans {
    pub buffers: Buffers,
    pub sizes: Sizes,
    pub prefill: Plan,
    pub decode: Plan,
    /// Where the logits come out (of a tower, its features), what they give the targets, and the ids picked from them.
    pub logits: Rows,
    pub scores: Rows,
    pub ids: Buffer,
    /// Where a layer of a prefill leaves the weights of its attention, of each head and position, in plans made for that.
    pub attention_weights: Option<Rows>,
    /// Where a prefill takes what stands for parts of images, in plans of a model that sees.
    pub features: Option<Rows>,
}

impl Plans {
    pub fn of(&self, phase: Phase) -> &Plan {
        match phase {
            Phase::Prefill => &self.prefill,
            Phase::Decode => &self.decode,
        }
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

    /// What a device dispatches for one run of a plan, of one sequence with little context: passes before, in and
    /// after the layers, and the most of any one layer.
    pub fn dispatches(&self, phase: Phase, can: &Capabilities) -> Dispatches {
        let target = Target { can, phase };
        let load = Workload { rows: 1, outputs: 1, context: 1, ..Workload::default() };
        let (mut all, mut by_layer) = (0, BTreeMap::<_, usize>::new());
        let has_work = |pass: &&Pass| pass.kernel.cost(&load) != Cost::default();
        for pass in self.of(phase).passes.iter().filter(has_work) {
            // The CPU, which joins nothing, calls a kernel once, whatever its parts.
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

    /// The programs that a device runs for both shapes, each once, in the order of the passes.
    pub fn programs(&self, can: &Capabilities) -> Vec<Program> {
        let (mut programs, mut known) = (Vec::new(), HashSet::new());
        for phase in Phase::ALL {
            let passes = self.of(phase).passes.iter();
            for dispatch in passes.flat_map(|pass| pass.kernel.dispatches(&Target { can, phase })) {
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
