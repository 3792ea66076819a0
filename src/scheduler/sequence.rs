//! A sequence: the tokens of one request, what is wanted of them, and how far it has come.

use crate::{
    buffers::BLOCK,
    cache::{Blocks, Content, Name},
    prompt::{Features, Placed},
    sampling::{Sampler, Sampling},
    step::SAMPLED,
};

/// A sequence's identity, given in the order of arrival and never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub(super) u64);

/// What is asked of a sequence.
#[derive(Clone, Debug)]
pub enum Goal {
    /// At most `max_tokens` more tokens, fewer where one of `ends` comes.
    Generate { sampling: Sampling, max_tokens: usize, ends: Vec<u32> },
    /// For each of the prompt's tokens from index `from` on, the log-probability of the target given with it.
    Score { from: usize, targets: Vec<u32> },
    /// For each of the prompt's tokens from index `from` on, the logits of the token after it.
    Predict { from: usize },
}

/// A sequence to be added to a scheduler.
#[derive(Clone, Debug)]
pub struct NewSequence {
    /// At least one.
    pub tokens: Vec<u32>,
    /// In the order of their places.
    pub images: Vec<Placed>,
    pub goal: Goal,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model ended the text.
    Stop,
    /// As many tokens as were asked for, or as the context holds.
    Length,
}

/// What a sequence's outputs are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Generate,
    Score,
    Predict,
}

/// A sequence at work or waiting.
#[derive(Debug)]
pub(super) struct Sequence {
    pub id: SequenceId,
    pub kind: Kind,
    /// The prompt, then what was generated, as far as the host knows it.
    pub tokens: Vec<u32>,
    /// How many of the tokens are the prompt's: these run through the prefill plan, all others through the
    /// decode plan.
    pub prompt: usize,
    images: Vec<Placed>,
    pub sampler: Sampler,
    ends: Vec<u32>,
    /// With how many tokens in all it ends.
    max_len: usize,
    /// The tokens to score, of the outputs that have not come back.
    pub targets: Vec<u32>,
    /// The first token whose output (the prediction of the next) has not come back.
    pub outputs_from: usize,

    /// How many tokens are in the cache, or will be once all steps under way have run.
    pub computed: usize,
    /// Of those, how many were found there rather than computed.
    pub cached: usize,
    /// Outputs that steps under way will give.
    pub in_flight: usize,
    /// How often it was preempted: what an earlier run still has under way is not its own any more.
    pub epoch: u32,
    /// The cache's blocks of its positions, in order, and the names of the first of them.
    pub blocks: Vec<u32>,
    names: Vec<Name>,
    /// The number of the last step that it had a part in.
    pub last_step: u64,
}

impl Sequence {
    pub fn new(id: SequenceId, new: NewSequence) -> Self {
        let NewSequence { tokens, images, goal } = new;
        let prompt = tokens.len();
        let (kind, sampling, max_len, ends, outputs_from, targets) = match goal {
            Goal::Generate { sampling, max_tokens, ends } => {
                (Kind::Generate, sampling, prompt + max_tokens, ends, prompt - 1, Vec::new())
            }
            Goal::Score { from, targets } => {
                (Kind::Score, Sampling::GREEDY, prompt, Vec::new(), from, targets)
            }
            Goal::Predict { from } => (Kind::Predict, Sampling::GREEDY, prompt, Vec::new(), from, Vec::new()),
        };
        Self {
            id,
            kind,
            tokens,
            prompt,
            images,
            sampler: Sampler::new(sampling),
            ends,
            max_len,
            targets,
            outputs_from,
            computed: 0,
            cached: 0,
            in_flight: 0,
            epoch: 0,
            blocks: Vec::new(),
            names: Vec::new(),
            last_step: 0,
        }
    }

    /// Ends it with at most so many tokens in all.
    pub fn limit(&mut self, tokens: usize) {
        self.max_len = self.max_len.min(tokens);
    }

    /// Tokens, those included that steps under way will draw.
    pub fn len(&self) -> usize {
        match self.kind {
            Kind::Generate => self.tokens.len() + self.in_flight,
            Kind::Score | Kind::Predict => self.prompt,
        }
    }

    /// The prompt's tokens that have not run.
    pub fn prompt_left(&self) -> usize {
        self.prompt.saturating_sub(self.computed)
    }

    /// Whether a token after the prompt can run now.
    pub fn can_decode(&self) -> bool {
        let waits = self.in_flight > 0 && self.sampler.looks_back();
        self.prompt_left() == 0 && self.computed < self.len() && self.len() < self.max_len && !waits
    }

    /// The token at an index, as a step names it.
    pub fn token(&self, index: usize) -> u32 {
        self.tokens.get(index).copied().unwrap_or(SAMPLED)
    }

    /// Whether the output of the token at an index is wanted.
    pub fn wants(&self, index: usize) -> bool {
        match self.kind {
            Kind::Generate => index + 1 == self.len(),
            Kind::Score | Kind::Predict => index >= self.outputs_from,
        }
    }

    /// The token whose log-probability is asked for after the one at an index.
    pub fn target(&self, index: usize) -> Option<u32> {
        self.targets.get(index.checked_sub(self.outputs_from)?).copied()
    }

    /// The image that stands at an index, and which of its tokens is meant.
    pub fn image_at(&self, index: usize) -> Option<(&Features, usize)> {
        let image = self.images.iter().rev().find(|image| image.at <= index)?;
        let part = index - image.at;
        (part < image.features.tokens()).then_some((&image.features, part))
    }

    /// The blocks that it needs for so many tokens beyond those that it has.
    pub fn blocks_missing(&self, tokens: usize) -> usize {
        tokens.div_ceil(BLOCK as usize).saturating_sub(self.blocks.len())
    }

    /// Takes over what the cache holds of its beginning; the tokens whose outputs are wanted run in any case.
    /// `share_decoded`: also what decoding wrote.
    pub fn find(&mut self, blocks: &mut Blocks, share_decoded: bool) {
        let shared = if share_decoded { self.tokens.len() } else { self.prompt }.min(self.outputs_from);
        while self.computed == self.names.len() * BLOCK as usize && self.computed + BLOCK as usize <= shared {
            let Some((block, name)) = blocks.find(&self.content(self.names.len())) else { return };
            if self.blocks.len() > self.names.len() {
                let own = std::mem::replace(&mut self.blocks[self.names.len()], block);
                blocks.release(&[own]);
            } else {
                self.blocks.push(block);
            }
            self.names.push(name);
            self.computed += BLOCK as usize;
            self.cached += BLOCK as usize;
        }
    }

    /// Has others find what is in the cache: whole blocks of the prompt, for their keys and values follow
    /// from the tokens alone; those that decoding wrote have other last bits. `share_decoded`: these, too,
    /// once their tokens are known.
    pub fn name_blocks(&mut self, blocks: &mut Blocks, share_decoded: bool) {
        let shared = if share_decoded { self.tokens.len() } else { self.prompt }.min(self.computed);
        for number in self.names.len()..shared / BLOCK as usize {
            self.names.push(blocks.name(self.blocks[number], self.content(number)));
        }
    }

    /// What its block of this number holds.
    fn content(&self, number: usize) -> Content {
        let start = number * BLOCK as usize;
        let end = start + BLOCK as usize;
        Content {
            before: number.checked_sub(1).map(|before| self.names[before]),
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

    /// Gives up its place in the cache: it will run from the beginning.
    pub fn preempt(&mut self, blocks: &mut Blocks) {
        blocks.release(&std::mem::take(&mut self.blocks));
        self.names.clear();
        (self.computed, self.cached, self.in_flight) = (0, 0, 0);
        self.epoch += 1;
    }

    /// Takes note that the outputs before this token were given; whether none is left.
    pub fn gave_outputs(&mut self, end: usize) -> bool {
        self.outputs_from = end;
        end == self.prompt
    }

    /// Takes in the token that was drawn; why the text ends with it, if it does.
    pub fn push(&mut self, token: u32, probability: f32) -> Option<FinishReason> {
        self.tokens.push(token);
        self.outputs_from = self.tokens.len() - 1;
        self.sampler.observe(probability);
        if self.ends.contains(&token) {
            Some(FinishReason::Stop)
        } else {
            (self.tokens.len() >= self.max_len).then_some(FinishReason::Length)
        }
    }
}
