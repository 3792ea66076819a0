//! A sequence: the tokens of one request, its goal and its progress.

use super::guesses::Guesses;
use crate::{
    buffers::BLOCK,
    cache_blocks::{Blocks, Content, Name},
    prompt::{Features, Placed},
    sampling::{Sampler, Sampling},
    step::SAMPLED,
};

/// The identity of a sequence. Ids increase in the order of arrival and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub(super) u64);

/// What to compute for a sequence.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a sequence has one, and nearly all generate")]
pub enum Goal {
    /// Up to `max_tokens` new tokens. Any of the ids `ends` ends the text earlier.
    /// With `logprobs`, also the log-probabilities of each and of so many that are the most probable in its
    /// place. The text ends where the context is full; with `keep`, a text without images goes on there
    /// after the older half of the tokens behind the first `keep` is left out. At most three quarters of
    /// the context are kept.
    Generate {
        sampling: Sampling,
        max_tokens: usize,
        ends: Vec<u32>,
        logprobs: Option<usize>,
        keep: Option<usize>,
    },
    /// For each prompt token from index `from` on, the log-probability (natural) of its target as the next
    /// token. There is one target for each of these tokens.
    Score { from: usize, targets: Vec<u32> },
    /// For each prompt token from index `from` on, the logits of the next token, `[vocab]`.
    Predict { from: usize },
    /// For each prompt token from index `from` on, its hidden state after the final norm, `[hidden]`.
    Hidden { from: usize },
}

impl Goal {
    /// Up to `max_tokens` new tokens, as far as the context has room.
    pub fn generate(sampling: Sampling, max_tokens: usize) -> Self {
        Self::Generate { sampling, max_tokens, ends: Vec::new(), logprobs: None, keep: None }
    }
}

/// A sequence to add to a scheduler.
#[derive(Clone, Debug)]
pub struct NewSequence {
    /// The prompt: at least one token.
    pub tokens: Vec<u32>,
    /// In the order of their positions.
    pub images: Vec<Placed>,
    /// How much of each adapter applies.
    pub adapters: Vec<f32>,
    pub goal: Goal,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model generated a token that ends the text.
    Stop,
    /// The requested number of tokens is reached, or the context is full.
    Length,
}

/// The kind of a [`Goal`]: what a sequence's outputs are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Generate,
    Score,
    Predict,
    Hidden,
}

/// A sequence that runs or waits.
#[derive(Debug)]
pub(super) struct Sequence {
    pub id: SequenceId,
    pub kind: Kind,
    /// The prompt's tokens, then the generated tokens that the host knows.
    pub tokens: Vec<u32>,
    /// The number of prompt tokens. These run in the prefill plan, all others in the decode plan.
    pub prompt: usize,
    images: Vec<Placed>,
    /// How much of each adapter applies.
    pub adapters: Vec<f32>,
    pub sampler: Sampler,
    /// How many alternatives to each token are asked for, with their log-probabilities.
    pub logprobs: Option<usize>,
    ends: Vec<u32>,
    /// The number of tokens, prompt included, at which the sequence ends or leaves some out.
    max_len: usize,
    /// The number of tokens that may still be drawn.
    left: usize,
    /// The number of tokens that are never left out, if others are where the context is full.
    keep: Option<usize>,
    /// Whether some were left out.
    is_shortened: bool,
    /// The targets of the outputs that have not come back yet.
    pub targets: Vec<u32>,
    /// The index of the first token whose output (the prediction of the next token, or its hidden state) has
    /// not come back yet.
    pub outputs_from: usize,

    /// The number of tokens that are in the cache once all steps in flight have run.
    pub computed: usize,
    /// How many of these were found in the cache, not computed.
    pub cached: usize,
    /// The number of tokens that steps in flight will sample.
    pub in_flight: usize,
    pub guesses: Guesses,
    /// How often the sequence was preempted. Results of steps from before the last preemption are ignored.
    pub epoch: u32,
    /// The cache blocks that hold the sequence's positions, in order.
    pub blocks: Vec<u32>,
    /// The names of the first blocks; the others have none yet.
    names: Vec<Name>,
    /// The number of the last step that ran tokens of this sequence.
    pub last_step: u64,
}

impl Sequence {
    /// A sequence of at most `context` tokens.
    pub fn new(id: SequenceId, new: NewSequence, context: usize) -> Self {
        let NewSequence { tokens, images, adapters, goal } = new;
        let prompt = tokens.len();
        let mut sequence = Self {
            id,
            kind: Kind::Generate,
            tokens,
            prompt,
            images,
            adapters,
            sampler: Sampler::new(Sampling::GREEDY),
            logprobs: None,
            ends: Vec::new(),
            max_len: prompt,
            left: 0,
            keep: None,
            is_shortened: false,
            targets: Vec::new(),
            outputs_from: prompt - 1,
            computed: 0,
            cached: 0,
            in_flight: 0,
            guesses: Guesses::new(),
            epoch: 0,
            blocks: Vec::new(),
            names: Vec::new(),
            last_step: 0,
        };
        match goal {
            Goal::Generate { sampling, max_tokens, ends, logprobs, keep } => {
                (sequence.sampler, sequence.logprobs, sequence.ends) =
                    (Sampler::new(sampling), logprobs, ends);
                sequence.left = max_tokens;
                sequence.max_len = context.min(prompt.saturating_add(max_tokens));
                // At least an eighth of the context is left out at once, for the rest is read again.
                let most = context - context.div_ceil(4);
                sequence.keep = keep.filter(|_| sequence.images.is_empty()).map(|keep| keep.min(most));
            }
            Goal::Score { from, targets } => {
                (sequence.kind, sequence.outputs_from, sequence.targets) = (Kind::Score, from, targets);
            }
            Goal::Predict { from } => (sequence.kind, sequence.outputs_from) = (Kind::Predict, from),
            Goal::Hidden { from } => (sequence.kind, sequence.outputs_from) = (Kind::Hidden, from),
        }
        sequence
    }

    /// The number of tokens, including those that steps in flight will sample.
    pub fn len(&self) -> usize {
        match self.kind {
            Kind::Generate => self.tokens.len() + self.in_flight,
            Kind::Score | Kind::Predict | Kind::Hidden => self.prompt,
        }
    }

    /// The number of prompt tokens that have not run.
    pub fn prompt_left(&self) -> usize {
        self.prompt.saturating_sub(self.computed)
    }

    /// Whether a generated token can run now.
    pub fn can_decode(&self) -> bool {
        let waits = self.in_flight > 0 && (self.sampler.looks_back() || self.guesses.wait());
        self.prompt_left() == 0 && self.computed < self.len() && self.len() < self.max_len && !waits
    }

    /// The tokens that may come after the one that a step in flight will sample, at most `most`.
    pub fn guess(&mut self, most: usize) -> &[u32] {
        // What is guessed must be sampled as what is known: without regard to the tokens before it.
        let can_guess = self.kind == Kind::Generate && self.in_flight == 1 && !self.sampler.looks_back();
        let room = self.max_len.saturating_sub(self.tokens.len() + 1);
        let most = if can_guess { most.min(room) } else { 0 };
        self.guesses.look_up(&self.tokens, most)
    }

    /// The token at an index, or [`SAMPLED`] if only the device knows it yet.
    pub fn token(&self, index: usize) -> u32 {
        self.tokens.get(index).copied().unwrap_or(SAMPLED)
    }

    /// Whether the output of the token at an index is wanted.
    pub fn wants(&self, index: usize) -> bool {
        match self.kind {
            Kind::Generate => index + 1 == self.len(),
            Kind::Score | Kind::Predict => index >= self.outputs_from,
            Kind::Hidden => false,
        }
    }

    /// How many of the next tokens can run in a step that has room for so many more outputs.
    pub fn within(&self, outputs: usize) -> usize {
        match self.kind {
            Kind::Hidden => usize::MAX,
            // Tokens before the first wanted output need none.
            _ => self.outputs_from.saturating_sub(self.computed) + outputs,
        }
    }

    /// The target of the token at an index, if it has one.
    pub fn target(&self, index: usize) -> Option<u32> {
        self.targets.get(index.checked_sub(self.outputs_from)?).copied()
    }

    /// The image that takes the place of the token at an index, and the index within the image.
    pub fn image_at(&self, index: usize) -> Option<(&Features, usize)> {
        let image = self.images.iter().rev().find(|image| image.at <= index)?;
        let part = index - image.at;
        (part < image.features.tokens()).then_some((&image.features, part))
    }

    /// How many more blocks the sequence needs to hold its first `tokens` tokens.
    pub fn blocks_missing(&self, tokens: usize) -> usize {
        tokens.div_ceil(BLOCK as usize).saturating_sub(self.blocks.len())
    }

    /// Takes blocks from the cache that already hold the next tokens of the sequence. The tokens whose
    /// outputs are wanted must run in any case. With `share_decoded`, blocks that decoding wrote count, too.
    pub fn find(&mut self, blocks: &mut Blocks, share_decoded: bool) {
        let shared = if share_decoded { self.tokens.len() } else { self.prompt }.min(self.outputs_from);
        while self.computed == self.names.len() * BLOCK as usize && self.computed + BLOCK as usize <= shared {
            let Some((block, name)) = blocks.find(&self.content(self.names.len())) else { return };
            self.blocks.push(block);
            self.names.push(name);
            self.computed += BLOCK as usize;
            self.cached += BLOCK as usize;
        }
    }

    /// Names the sequence's full blocks, so that other sequences find them. Blocks of the prompt qualify
    /// because their keys and values depend on the tokens alone; those that decoding wrote have different
    /// last bits. With `share_decoded`, the latter qualify, too, once the host knows their tokens.
    pub fn name_blocks(&mut self, blocks: &mut Blocks, share_decoded: bool) {
        let shared = if share_decoded { self.tokens.len() } else { self.prompt }.min(self.computed);
        for number in self.names.len()..shared / BLOCK as usize {
            self.names.push(blocks.name(self.blocks[number], self.content(number)));
        }
    }

    /// The content of the sequence's block with this index.
    fn content(&self, number: usize) -> Content {
        let start = number * BLOCK as usize;
        let end = start + BLOCK as usize;
        let before = number.checked_sub(1).map(|before| self.names[before]);
        Content {
            before,
            adapters: Content::adapters(before, &self.adapters),
            tokens: self.tokens[start..end].to_vec(),
            // The last image that starts before the block may reach into it.
            images: self
                .images
                .iter()
                .filter(|image| image.at < end)
                .skip(self.images.iter().filter(|image| image.at < start).count().saturating_sub(1))
                .map(|image| (image.at as isize - start as isize, image.features.clone()))
                .collect(),
        }
    }

    /// Gives up the sequence's blocks. It will run again from its first token.
    pub fn preempt(&mut self, blocks: &mut Blocks) {
        blocks.release(&std::mem::take(&mut self.blocks));
        self.names.clear();
        (self.computed, self.cached, self.in_flight) = (0, 0, 0);
        self.guesses.in_flight = false;
        self.epoch += 1;
    }

    /// Records that the outputs of all tokens before index `end` have come back. Returns the reason if these
    /// were all.
    pub fn gave_outputs(&mut self, end: usize) -> Option<FinishReason> {
        self.outputs_from = end;
        (end == self.prompt).then_some(FinishReason::Length)
    }

    /// Appends a sampled token. Returns the reason if the text ends with it.
    pub fn push(&mut self, token: u32, probability: f32) -> Option<FinishReason> {
        self.tokens.push(token);
        self.left = self.left.saturating_sub(1);
        self.outputs_from = self.tokens.len() - 1;
        self.sampler.observe(probability);
        self.guesses.observe(token);
        let can_go_on = self.left > 0 && (self.tokens.len() < self.max_len || self.droppable() > 0);
        if self.ends.contains(&token) {
            Some(FinishReason::Stop)
        } else {
            (!can_go_on).then_some(FinishReason::Length)
        }
    }

    /// How many tokens can be left out where the context is full.
    fn droppable(&self) -> usize {
        self.keep.map_or(0, |keep| (self.tokens.len() - keep).div_ceil(2))
    }

    /// Whether tokens must be left out before another can be drawn.
    pub fn is_full(&self) -> bool {
        self.kind == Kind::Generate && self.tokens.len() >= self.max_len
    }

    /// Leaves out tokens where the context is full. What remains is read again, as a prompt: so what comes
    /// follows from it alone.
    pub fn shorten(&mut self, blocks: &mut Blocks) {
        self.preempt(blocks);
        let (keep, context) = (self.keep.unwrap_or(0), self.max_len);
        self.tokens.drain(keep..keep + self.droppable());
        self.prompt = self.tokens.len();
        self.outputs_from = self.prompt - 1;
        self.max_len = context.min(self.prompt.saturating_add(self.left));
        self.guesses = Guesses::new();
        self.sampler.restart();
        self.is_shortened = true;
    }

    /// Whether the next token to be drawn is the first.
    pub fn is_first(&self) -> bool {
        self.len() == self.prompt + 1 && !self.is_shortened
    }
}
