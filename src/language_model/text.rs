//! Ids as they are generated → text, up to where it ends.

use super::Stopping;
use crate::{
    engine::{FinishReason, Generation, Timing},
    error::Result,
    tokenizer::TextStream,
};

/// A text in the making: an iterator of its pieces, one for each token, which is empty where no character is
/// whole yet or what it says may be the beginning of a stop string.
pub struct Text<'a> {
    generation: Generation<'a>,
    stream: TextStream<'a>,
    stopping: Stopping,
    tokens: Vec<u32>,
    /// The ids that end it, beside those that end any text of the model's.
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

    /// The same, which one of these ids ends too.
    pub(super) fn until(self, ends: &[u32]) -> Self {
        Self { ends: ends.to_vec(), ..self }
    }

    /// Reads on in the prompt: how many of its tokens are read and how many there are; none once all are. The
    /// first piece waits for that anyway: this is for those who show how far it is, or may give up meanwhile.
    pub fn read(&mut self) -> Result<Option<(usize, usize)>> {
        self.generation.read()
    }

    /// The ids so far, the one that ends the text included.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What was said so far, and what is held back of it.
    pub fn text(&self) -> &str {
        &self.stopping.text
    }

    /// Why it ended; none while it goes on.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        if self.ended { Some(FinishReason::Stop) } else { self.generation.finish_reason() }
    }

    pub fn timing(&self) -> Timing {
        self.generation.timing()
    }

    /// What is held back, for who takes no more pieces; nothing the second time.
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
        // The token that ends a text is part of the tokens, not of the text.
        let is_end = self.generation.finish_reason() == Some(FinishReason::Stop) || self.ends.contains(&id);
        if is_end {
            self.ended = true;
            return Some(Ok(self.finish()));
        }
        let piece = self.stream.push(id);
        let shown = self.stopping.push(&piece).to_owned();
        self.ended = self.stopping.stopped;
        Some(Ok(shown))
    }
}
