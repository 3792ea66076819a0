//! Turns generated ids into text, up to where the text ends.

use super::Stopping;
use crate::{
    engine::{FinishReason, Generation, Timing},
    error::Result,
    tokenizer::TextStream,
};

/// A text in progress: an iterator over its pieces, one per token. A piece is empty if its token completes no
/// character, or if the text may be the beginning of a stop string.
pub struct Text<'a> {
    generation: Generation<'a>,
    stream: TextStream<'a>,
    stopping: Stopping,
    tokens: Vec<u32>,
    /// The ids that end the text, besides those that end any text of the model.
    ends: Vec<u32>,
    ended: bool,
    flushed: bool,
}

impl<'a> Text<'a> {
    pub(super) fn new(generation: Generation<'a>, stream: TextStream<'a>, stop: &[String]) -> Self {
        let stopping = Stopping::new(stop);
        Self {
            generation,
            stream,
            stopping,
            tokens: Vec::new(),
            ends: Vec::new(),
            ended: false,
            flushed: false,
        }
    }

    /// Makes these ids end the text, too.
    pub(super) fn until(self, ends: &[u32]) -> Self {
        Self { ends: ends.to_vec(), ..self }
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
        &self.stopping.text
    }

    /// Why the text ended; `None` while it is in progress.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        if self.ended { Some(FinishReason::Stop) } else { self.generation.finish_reason() }
    }

    pub fn timing(&self) -> Timing {
        self.generation.timing()
    }

    /// Returns the text that is held back, for callers that take no more pieces. A second call returns
    /// nothing.
    pub fn finish(&mut self) -> String {
        if self.stopping.stopped || std::mem::replace(&mut self.flushed, true) {
            return String::new();
        }
        let pending = self.stream.finish();
        let mut rest = self.stopping.push(&pending).to_owned();
        rest += self.stopping.finish();
        self.ended |= self.stopping.stopped;
        rest
    }
}

impl Iterator for Text<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        let next = if self.ended { None } else { self.generation.next() };
        let id = match next {
            Some(Ok(id)) => id,
            Some(Err(e)) => {
                (self.ended, self.flushed) = (true, true);
                return Some(Err(e));
            }
            None => return Some(self.finish()).filter(|rest| !rest.is_empty()).map(Ok),
        };
        self.tokens.push(id);
        // The token that ends a text is one of its tokens, but not part of its text.
        let is_end = self.generation.finish_reason() == Some(FinishReason::Stop) || self.ends.contains(&id);
        if is_end {
            self.ended = true;
            return Some(Ok(self.finish()));
        }
        let piece = self.stream.push(id);
        let mut shown = self.stopping.push(&piece).to_owned();
        if let Some(spelling) = self.stream.special(id) {
            shown += self.stopping.push_special(&spelling);
        }
        self.ended = self.stopping.stopped;
        Some(Ok(shown))
    }
}
