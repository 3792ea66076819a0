//! Conversations with a model. Their earlier turns stay in the KV cache.

use super::{Detokenizer, LanguageModel, Request, Text};
use crate::{
    chat::{Message, Template},
    engine::{Features, Placed, Prompt},
    error::{Error, Result},
};

/// A conversation with a model.
pub struct Conversation<'a> {
    language_model: &'a mut LanguageModel,
    template: Template,
    /// The ids that end a turn.
    ends: Vec<u32>,
    /// The messages so far. A message of the role system can only be the first. The list may be changed
    /// between turns.
    pub said: Vec<Message>,
    /// How to generate answers.
    pub request: Request,
    /// The images to show with the next message. [`Conversation::say`] takes them, even if it fails.
    pub pending_images: Vec<Features>,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(language_model: &'a mut LanguageModel, request: Request) -> Result<Self> {
        let template = Template::of(&language_model.model)?;
        let ends = template.ends(&language_model.model, &language_model.tokenizer)?;
        Ok(Self { language_model, template, ends, said: Vec::new(), request, pending_images: Vec::new() })
    }

    pub fn language_model(&self) -> &LanguageModel {
        self.language_model
    }

    /// Whether the model has a token that ends an answer. If not, answers may go on to the limit of tokens.
    pub fn can_end(&self) -> bool {
        !self.ends.is_empty()
    }

    /// Whether the model has no template of its own.
    pub fn is_plain(&self) -> bool {
        self.template.is_plain()
    }

    /// Encodes an image, to show it with the next message.
    ///
    /// # Errors
    /// Of the kind Request if the model takes no images.
    #[cfg(feature = "images")]
    pub fn add_image(&mut self, image: &crate::image::Image) -> Result<()> {
        self.pending_images.push(self.language_model.encode_image(image)?);
        Ok(())
    }

    /// Sends a message to the model and returns its answer. When the [`Answer`] is dropped, the text that it
    /// has so far becomes part of the conversation. If it failed or has no token yet, the conversation is as
    /// it was before the message.
    ///
    /// # Errors
    /// Of the kind Request if the template rejects the conversation or the context cannot hold it.
    pub fn say(&mut self, text: impl Into<String>) -> Result<Answer<'_>> {
        let mut said = self.said.clone();
        let images = std::mem::take(&mut self.pending_images);
        said.push(Message { images, ..Message::new("user", text) });
        self.answer(said)
    }

    /// Answers the last message again, with another seed.
    ///
    /// # Errors
    /// Of the kind Request if there is no message to answer. Else those of [`Conversation::say`].
    pub fn regenerate(&mut self) -> Result<Answer<'_>> {
        let mut said = self.said.clone();
        said.pop_if(|message| message.role == "assistant");
        if said.last().is_none_or(|message| message.role != "user") {
            return Err(Error::request("nothing was said that could be answered anew"));
        }
        // The same seed would give the same answer.
        self.request.sampling.seed = self.request.sampling.seed.wrapping_add(1);
        self.answer(said)
    }

    /// Generates the answer to the messages `said`, which become the conversation. The oldest turns may be
    /// dropped.
    fn answer(&mut self, mut said: Vec<Message>) -> Result<Answer<'_>> {
        let (prompt, images, forgotten) = self.prompt(&mut said)?;
        let Self { language_model, template, ends, said: before, request, .. } = self;
        let LanguageModel { engine, tokenizer, .. } = &mut **language_model;
        let whole = Prompt { tokens: &prompt, images: &images, adapters: None };
        let generation = engine.generate(whole, request.sampling.clone(), request.max_tokens)?;
        let mut stops = request.stop.clone();
        stops.extend(template.stop().map(str::to_owned));
        let text = Text::new(generation, Detokenizer::new(tokenizer.stream(&prompt), &stops, ends.clone()));
        let before = std::mem::replace(before, said);
        let said = &mut self.said;
        Ok(Answer {
            text,
            said,
            before,
            prompt_tokens: prompt.len(),
            forgotten,
            is_begun: false,
            failed: false,
        })
    }

    /// The tokens of a conversation, its images, and the number of messages that were dropped. The oldest
    /// turns are dropped from `said` as long as the conversation leaves no room for an answer.
    fn prompt(&self, said: &mut Vec<Message>) -> Result<(Vec<u32>, Vec<Placed>, usize)> {
        let LanguageModel { model, tokenizer, engine } = &*self.language_model;
        let context = engine.context() as usize;
        let room = self.request.max_tokens.min(context / 4).max(1);
        let first = usize::from(said.first().is_some_and(|message| message.role == "system"));
        let mut forgotten = 0;
        loop {
            let text = self.template.render(said, true)?;
            // The template itself writes the start token, if any.
            let tokens = model.begun(tokenizer.encode(&text, self.template.is_plain())?);
            let images: Vec<Features> = said.iter().flat_map(|message| message.images.clone()).collect();
            let (tokens, images) = self.language_model.place(tokens, &images)?;
            // The last message is never dropped, so that the template and the engine can reject it.
            let turns = said.len() - first;
            if tokens.len() + room <= context || turns < 3 {
                return Ok((tokens, images, forgotten));
            }
            said.drain(first..first + 2);
            forgotten += 2;
        }
    }
}

/// An answer in progress: an iterator over its pieces of text. Leading white space is removed.
pub struct Answer<'a> {
    text: Text<'a>,
    said: &'a mut Vec<Message>,
    /// The messages before the one that is answered, restored if there is no answer.
    before: Vec<Message>,
    /// The number of tokens of the conversation before the answer.
    pub prompt_tokens: usize,
    /// The number of messages that were dropped, the oldest first, because the context has no room for them.
    pub forgotten: usize,
    is_begun: bool,
    failed: bool,
}

impl<'a> Answer<'a> {
    pub fn text(&self) -> &Text<'a> {
        &self.text
    }

    /// The same as [`Text::read`].
    pub fn read(&mut self) -> Result<Option<(usize, usize)>> {
        let outcome = self.text.read();
        self.failed |= outcome.is_err();
        outcome
    }

    /// Returns the text that is held back, for callers that take no more pieces.
    pub fn finish(&mut self) -> String {
        let rest = self.text.finish();
        self.without_leading_blanks(rest)
    }

    fn without_leading_blanks(&mut self, piece: String) -> String {
        if self.is_begun {
            return piece;
        }
        let piece = piece.trim_start();
        self.is_begun = !piece.is_empty();
        piece.to_owned()
    }
}

impl Iterator for Answer<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        let piece = self.text.next()?;
        self.failed |= piece.is_err();
        Some(piece.map(|piece| self.without_leading_blanks(piece)))
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if self.failed || self.text.tokens().is_empty() {
            *self.said = std::mem::take(&mut self.before);
        } else {
            self.text.finish();
            self.said.push(Message::new("assistant", self.text.text()));
        }
    }
}
