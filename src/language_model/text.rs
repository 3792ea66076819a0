//! A text that a model generates.

use super::Detokenizer;
use crate::{
    engine::{FinishReason, Generation, Timing},
    error::Result,
    tokenizer::Tokenizer,
};

/// A text in progress: an iterator over its pieces, one per token. A piece is empty if its token completes no
/// character, or if the text may be the beginning of a stop string.
pub struct Text<'a> {
    generation: Generation<'a>,
    detokenizer: Detokenizer<&'a Tokenizer>,
    tokens: Vec<u32>,
    has_failed: bool,
}

impl<'a> Text<'a> {
    pub(super) fn new(generation: Generation<'a>, detokenizer: Detokenizer<&'a Tokenizer>) -> Self {
        Self { generation, detokenizer, tokens: Vec::new(), has_failed: false }
    }

    /// Waits until the next chunk of the prompt is read. Returns how many prompt tokens are read and how many
    /// there are, or `None` once all are read. Calling this is optional, because the first piece waits for
    /// the whole prompt anyway. It lets callers show progress or stop early.
    pub fn read(&mut self) -> Result<Option<(usize, usize)>> {
        self.generation.read()
    }

    /// The ids so far, including the one that ends the text.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The text so far, including what is held back.
    pub fn text(&self) -> &str {
        self.detokenizer.text()
    }

    /// Why the text ended; `None` while it is in progress.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        if self.detokenizer.has_ended() { Some(FinishReason::Stop) } else { self.generation.finish_reason() }
    }

    pub fn timing(&self) -> Timing {
        self.generation.timing()
    }

    /// Returns the text that is held back, for callers that take no more pieces. A second call returns
    /// nothing.
    pub fn finish(&mut self) -> String {
        if self.has_failed { String::new() } else { self.detokenizer.finish() }
    }
}

impl Iterator for Text<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        if self.has_failed {
            return None;
        }
        let next = if self.detokenizer.has_ended() { None } else { self.generation.next() };
        let Some(next) = next else { return Some(self.finish()).filter(|rest| !rest.is_empty()).map(Ok) };
        self.has_failed = next.is_err();
        Some(next.map(|id| {
            self.tokens.push(id);
            self.detokenizer.push(id, self.generation.finish_reason() == Some(FinishReason::Stop))
        }))
    }
}
