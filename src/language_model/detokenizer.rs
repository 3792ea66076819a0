//! Turns generated ids into text, up to where the text ends.

use super::Stopping;
use crate::tokenizer::{TextStream, Tokenizer};
use std::borrow::Borrow;

/// Turns the ids of one generation into text, up to an end token or a stop string.
pub struct Detokenizer<T> {
    stream: TextStream<T>,
    stopping: Stopping,
    /// The ids that end the text, besides those that end the generation.
    ends: Vec<u32>,
    has_ended: bool,
    is_flushed: bool,
}

impl<T: Borrow<Tokenizer>> Detokenizer<T> {
    /// For the ids that follow those of `stream`'s prompt. The text ends before any of the texts `stops`, and
    /// with any of the ids `ends`.
    pub fn new(stream: TextStream<T>, stops: &[String], ends: Vec<u32>) -> Self {
        Self { stream, stopping: Stopping::new(stops), ends, has_ended: false, is_flushed: false }
    }

    /// Takes the next id and returns the text that can be shown now. It is empty if the id completes no
    /// character, or if the text may be the beginning of a stop string. `is_end`: whether the id ends the
    /// text in any case. Such an id is one of the text's tokens, but not part of it.
    pub fn push(&mut self, id: u32, is_end: bool) -> String {
        if is_end || self.ends.contains(&id) {
            self.has_ended = true;
            return self.finish();
        }
        let piece = self.stream.push(id);
        let mut shown = self.stopping.push(&piece).to_owned();
        if let Some(spelling) = self.stream.special(id) {
            shown += self.stopping.push_special(&spelling);
        }
        self.has_ended = self.stopped_by().is_some();
        shown
    }

    /// Returns the text that is held back, once no more ids come. A second call returns nothing.
    pub fn finish(&mut self) -> String {
        if self.stopped_by().is_some() || std::mem::replace(&mut self.is_flushed, true) {
            return String::new();
        }
        let pending = self.stream.finish();
        let mut rest = self.stopping.push(&pending).to_owned();
        rest += self.stopping.finish();
        self.has_ended |= self.stopped_by().is_some();
        rest
    }

    /// Whether an end token or a stop string came.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The stop string that came, if one did.
    pub fn stopped_by(&self) -> Option<&str> {
        self.stopping.stopped_by.as_deref()
    }

    /// The text so far, including what is held back.
    pub fn text(&self) -> &str {
        &self.stopping.text
    }
}
