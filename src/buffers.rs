//! The buffers that plans refer to: what each holds and how large it is. Backends make them.

use crate::{
    kv_format::KvFormat,
    workload::{Phase, Workload},
};
use std::sync::Arc;

/// Positions in one block of the cache.
pub const BLOCK: u32 = 32;

/// The initial contents of a buffer, produced row by row as the buffer is filled or uploaded.
pub trait Contents: Send + Sync {
    fn rows(&self) -> usize;
    fn row_bytes(&self) -> usize;
    /// Writes the rows from `first` on, as many as `out` has room for. Overwrites every byte of `out`.
    fn fill(&self, first: usize, out: &mut [u8]);
    /// All the bytes, if they already are in memory in this form, aligned for their type.
    fn mapped(&self) -> Option<&[u8]> {
        None
    }
}

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

/// What the rows of an activation or of a grid stand for. A step has one row for each token, and one output
/// for each token whose logits are wanted.
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

/// Rows of an activation start at multiples of this many values. The gaps are zero, so that shaders can read
/// rows in vectors.
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
    /// Takes rows without gaps, and pads each to the stride of the buffer.
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
    /// Intermediate results between the dispatches of one pass: `stride` words for each row of a decode step,
    /// or for each output.
    Partials { per: Per, stride: u32 },
    /// Keys and values, `stride` words of this format for each slot of the cache.
    Cache { stride: u32, format: KvFormat },
    /// What was sampled last, by [`crate::sampling::Picked::all`]: for each sequence an id, then for each a
    /// probability.
    Ids,
}

/// The most that a step may ask for: what buffers are sized by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens in one step, by phase: prefill, then decode.
    pub rows: [u32; 2],
    pub outputs: u32,
    pub sequences: u32,
    /// Guessed tokens in one decode step, for all sequences together.
    pub guesses: u32,
    /// Positions that one sequence can reach.
    pub context: u32,
    /// Blocks of the cache, for all sequences together.
    pub blocks: u32,
    /// The adapters that each sequence has a scale for.
    pub adapters: u32,
}

impl Sizes {
    /// The block tables and sampled ids of a step: one for each sequence, then one for each guess.
    pub fn slots(&self) -> u32 {
        self.sequences + self.guesses
    }

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
            Content::Cache { stride, .. } => {
                u64::from(sizes.blocks) * u64::from(BLOCK) * u64::from(*stride) * 4
            }
            Content::Ids => u64::from(sizes.slots()) * 8,
        }
    }

    /// Bytes of all buffers of one kind under these sizes.
    pub fn total(&self, sizes: &Sizes, of: impl Fn(&Content) -> bool) -> u64 {
        self.all().filter(|b| of(self.content(*b))).map(|b| self.bytes(b, sizes)).sum()
    }
}
