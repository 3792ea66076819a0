//! Batches: the next step for a backend, its results, and the events that follow from them.

use super::{FinishReason, SequenceId, Slot};
use crate::{
    prompt::Features,
    sampling::{Logprobs, Picked},
    step::Step,
    workload::Phase,
};
use std::ops::Range;

/// A step, and the sequences whose tokens it runs.
#[derive(Debug)]
pub struct Batch {
    pub phase: Phase,
    pub step: Step,
    /// One entry for each row that holds a token of an image: the row, the image, and the token's index in
    /// the image.
    pub images: Vec<(usize, Features, usize)>,
    /// Which results the host reads after the step, besides the sampled ids.
    pub reads: Reads,
    /// One part per sequence, in the order of the rows.
    pub parts: Vec<Part>,
    /// For each output, the token whose log-probability is requested, if any.
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

/// Which results of a step the host reads besides the sampled ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    pub scores: bool,
    /// The logits before biases and penalties change them.
    pub logits: bool,
    pub hidden: bool,
}

impl Reads {
    /// Whether another step may be submitted before these results are read. It may not if it would overwrite
    /// them: they lie in buffers that later steps write.
    pub fn allow_more(self) -> bool {
        self == Self::default()
    }
}

/// The part of a batch that belongs to one sequence.
#[derive(Clone, Debug)]
pub struct Part {
    pub sequence: SequenceId,
    pub(super) epoch: u32,
    pub slot: Slot,
    /// Where its sampled token comes out: its own slot, or one for guesses.
    pub(super) sampled: Slot,
    /// The guessed token that the part runs, if it runs one.
    pub(super) guess: Option<u32>,
    /// The number of its first row in the step.
    pub(super) first_row: usize,
    /// The indices of the sequence's tokens that run.
    pub tokens: Range<usize>,
    /// The number of outputs that belong to the sequence. They are those of its last tokens in the batch.
    pub outputs: usize,
}

/// The results of a batch.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The last sampled token of each slot.
    pub picked: Vec<Picked>,
    /// The log-probability of each target, `[outputs]`, if the batch reads scores; else empty.
    pub scores: Vec<f32>,
    /// The logits, `[outputs, vocab]`, if the batch reads them; else empty.
    pub logits: Vec<f32>,
    /// The hidden states after the final norm, `[rows, hidden]`, if the batch reads them; else empty.
    pub hidden: Vec<f32>,
}

/// Something that happened to a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub sequence: SequenceId,
    pub happened: Happened,
}

/// What can happen to a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// It got a slot and runs. The first `cached` tokens of the prompt were found in the cache.
    Started { slot: Slot, cached: usize },
    /// The first `tokens` tokens of the prompt are in the cache now. `cached` of them were found there, not
    /// computed.
    Read { tokens: usize, cached: usize },
    /// The log-probabilities of the token that the next event tells, if the goal asks for them.
    Logprobs(Logprobs),
    /// The next generated token.
    Token(u32),
    /// The log-probabilities of its next targets, in order.
    Scores(Vec<f32>),
    /// The logits of its next outputs, `[outputs, vocab]`.
    Logits(Vec<f32>),
    /// The hidden states of its next tokens after the final norm, `[tokens, hidden]`.
    Hidden(Vec<f32>),
    /// The sequence ended. All its results are in the events before this one.
    Finished(FinishReason),
    /// The sequence went back to the queue because the cache was full. It will continue after the last token
    /// that was reported.
    Preempted,
    /// The sequence ended because no logit was a number.
    NotNumbers,
}
