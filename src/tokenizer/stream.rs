//! Turns token ids into text as they come, without splitting a character.

use super::Tokenizer;
use std::borrow::Borrow;

/// A stream of the text that follows a prompt. What it returns is what decoding the prompt and the ids
/// together shows beyond the prompt, except that bytes that are no character do not spoil those before and
/// after them.
pub struct TextStream<T> {
    tokenizer: T,
    /// Ids whose text is complete. They are decoded before the next ones, because a text's first token is
    /// decoded in another way: LLaMA's tokenizers leave out its blank.
    context: Vec<u32>,
    /// Ids whose text may be incomplete.
    pending: Vec<u32>,
    /// The characters of `pending` that were returned.
    returned: usize,
    /// The bytes of an incomplete character, and the ids of these byte tokens.
    bytes: Vec<u8>,
    byte_ids: Vec<u32>,
    /// How many of them belong to the prompt.
    bytes_of_prompt: usize,
}

impl Tokenizer {
    /// A stream that turns the ids after a prompt into text.
    pub fn stream(&self, prompt: &[u32]) -> TextStream<&Self> {
        TextStream::new(self, prompt)
    }

    /// Some of the last ids: they do not begin within a character, and have a text if there is one.
    fn ending<'p>(&self, ids: &'p [u32]) -> &'p [u32] {
        let mut count = 8;
        loop {
            let mut from = ids.len().saturating_sub(count);
            while from > 0 && self.byte(ids[from]).is_some_and(|byte| byte & 0xc0 == 0x80) {
                from -= 1;
            }
            if from == 0 || !self.decode(&ids[from..], true).is_empty() {
                return &ids[from..];
            }
            count *= 2;
        }
    }
}

/// Whether some more bytes could make this one character.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
}

impl<T: Borrow<Tokenizer>> TextStream<T> {
    /// A stream that turns the ids after a prompt into text.
    pub fn new(tokenizer: T, prompt: &[u32]) -> Self {
        let of = tokenizer.borrow();
        let mut bytes: Vec<u8> = prompt.iter().rev().map_while(|id| of.byte(*id)).take(3).collect();
        bytes.reverse();
        // The prompt may end within a character.
        let cut = (0..bytes.len()).find(|at| is_incomplete(&bytes[*at..])).unwrap_or(bytes.len());
        bytes.drain(..cut);
        let whole = &prompt[..prompt.len() - bytes.len()];
        let context = of.ending(whole).to_vec();
        Self {
            tokenizer,
            context,
            pending: Vec::new(),
            returned: 0,
            bytes_of_prompt: bytes.len(),
            bytes,
            byte_ids: prompt[whole.len()..].to_vec(),
        }
    }

    /// Adds an id and returns the text that it completes, which may be empty.
    pub fn push(&mut self, id: u32) -> String {
        // Special tokens have no text, and change none.
        if self.tokenizer.borrow().is_special(id) {
            return String::new();
        }
        match self.tokenizer.borrow().byte(id) {
            Some(byte) => self.finish_pending() + &self.push_byte(id, byte),
            None => self.finish_bytes() + &self.push_text(id),
        }
    }

    /// The spelling of a special token, which is not part of the text.
    pub fn special(&self, id: u32) -> Option<String> {
        self.tokenizer.borrow().is_special(id).then(|| self.tokenizer.borrow().decode(&[id], false))
    }

    /// The remaining text, once no more ids come.
    pub fn finish(&mut self) -> String {
        self.finish_pending() + &self.finish_bytes()
    }

    fn push_byte(&mut self, id: u32, byte: u8) -> String {
        let mut text = String::new();
        if !self.bytes.is_empty() {
            let more = [&self.bytes[..], &[byte]].concat();
            // A byte that does not continue the character begins another one, or none.
            if std::str::from_utf8(&more).is_err() && !is_incomplete(&more) {
                text = self.finish_bytes();
            }
        }
        self.bytes.push(byte);
        self.byte_ids.push(id);
        match std::str::from_utf8(&self.bytes) {
            Ok(character) => {
                text += character;
                // The text goes on after this character.
                self.context = std::mem::take(&mut self.byte_ids);
                (self.bytes, self.bytes_of_prompt) = (Vec::new(), 0);
            }
            Err(_) if is_incomplete(&self.bytes) => (),
            Err(_) => text += &self.finish_bytes(),
        }
        text
    }

    /// Gives up an incomplete character: U+FFFD for each of its bytes.
    fn finish_bytes(&mut self) -> String {
        let count = self.bytes.len() - self.bytes_of_prompt;
        (self.bytes, self.byte_ids, self.bytes_of_prompt) = (Vec::new(), Vec::new(), 0);
        String::from(char::REPLACEMENT_CHARACTER).repeat(count)
    }

    fn push_text(&mut self, id: u32) -> String {
        self.pending.push(id);
        let text = self.pending_text();
        // An incomplete character at the end decodes as U+FFFD. Wait for the rest of it, but not for ever.
        let complete = text.strip_suffix(char::REPLACEMENT_CHARACTER).unwrap_or(&text);
        let new = complete.chars().skip(self.returned).collect();
        self.returned = self.returned.max(complete.chars().count());
        if complete.len() == text.len() && !text.is_empty() || self.pending.len() > 64 {
            self.pending_to_context();
        }
        new
    }

    fn finish_pending(&mut self) -> String {
        let text = self.pending_text().chars().skip(self.returned).collect::<String>();
        if !text.is_empty() {
            self.pending_to_context();
        }
        text
    }

    /// What `pending` adds to the text of `context`.
    fn pending_text(&self) -> String {
        let before = self.tokenizer.borrow().decode(&self.context, true);
        let all = self.tokenizer.borrow().decode(&[&self.context[..], &self.pending].concat(), true);
        all[common(&all, &before)..].to_owned()
    }

    fn pending_to_context(&mut self) {
        self.context = std::mem::take(&mut self.pending);
        self.returned = 0;
    }
}

/// The length in bytes of the longest common prefix, in whole characters.
fn common(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map_or(a.len().min(b.len()), |((at, _), _)| at)
}
