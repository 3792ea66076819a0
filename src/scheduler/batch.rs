//! What a backend is to run next, and what comes of it.

use super::{FinishReason, SequenceId, Slot};
use crate::{prompt::Features, sampling::Picked, step::Step, workload::Phase};
use std::ops::Range;

/// A step, and whose tokens are in it.
#[derive(Debug)]
pub struct Batch {
    pub phase: Phase,
    pub step: Step,
    /// For the rows that stand for parts of images: the row, the image, and which of its tokens.
    pub images: Vec<(usize, Features, usize)>,
    /// What the host reads beside the ids, once it has run.
    pub reads: Reads,
    /// By sequence, in the order of the rows.
    pub parts: Vec<Part>,
    /// For each output, the token whose log-probability is asked for, if it is.
    pub(super) targets: Vec<Option<u32>>,
}

impl Batch {
    pub(super) fn new(phase: Phase) -> Self {
        Self {
            phase,
            step: Step::default(),
            images: Vec::new(),
            reads: Reads::default(),
            parts: Vec::new(),
            targets: Vec::new(),
        }
    }
}

/// Which of a step's results are wanted, beside the ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    pub scores: bool,
    pub logits: bool,
}

impl Reads {
    /// Whether another step may run before the results are read: not where they lie in buffers that it
    /// writes.
    pub fn allow_more(self) -> bool {
        self == Self::default()
    }
}

/// A sequence's share of a batch.
#[derive(Clone, Debug)]
pub struct Part {
    pub sequence: SequenceId,
    pub(super) epoch: u32,
    pub slot: Slot,
    /// Its tokens that run, by index.
    pub tokens: Range<usize>,
    /// How many outputs are its own; its last tokens'.
    pub outputs: usize,
}

/// What came of a batch.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By slot.
    pub picked: Vec<Picked>,
    /// `[outputs]` where the batch reads scores, `[outputs, vocab]` where it reads logits; else empty.
    pub scores: Vec<f32>,
    pub logits: Vec<f32>,
}

/// What became of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub sequence: SequenceId,
    pub happened: Happened,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// So many tokens of its prompt are in the cache, `cached` of which were found there.
    Read { tokens: usize, cached: usize },
    /// The next token.
    Token(u32),
    /// The log-probabilities of its next targets, in order.
    Scores(Vec<f32>),
    /// The logits of its next outputs, `[outputs, vocab]`.
    Logits(Vec<f32>),
    /// It ended, with the event before this one.
    Finished(FinishReason),
    /// The cache was full: it was put back, and will go on where it was.
    Preempted,
    /// It ended, for no logit was a number.
    NotNumbers,
}
