//! Turns of a conversation, whose earlier ones stay in the cache.

use super::{LanguageModel, Request, Text};
use crate::{
    chat::{Message, Template},
    engine::{Features, Placed, Prompt},
    error::{Error, Result},
};

/// A conversation with a model.
pub struct Conversation<'a> {
    language_model: &'a mut LanguageModel,
    template: Template,
    /// The ids that end a turn, beside those that end a text.
    ends: Vec<u32>,
    /// What was said so far; a message of the role system, if any, is the first. It may be changed between
    /// turns.
    pub said: Vec<Message>,
    /// How answers are made.
    pub request: Request,
    /// What is shown with the next message, whether or not that can be answered.
    pub pending_images: Vec<Features>,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(language_model: &'a mut LanguageModel, request: Request) -> Result<Self> {
        let template = Template::of(&language_model.model)?;
        let tokenizer = &language_model.tokenizer;
        // The special token that stands after an answer.
        let after = tokenizer.encode(&template.end_of_turn(), false)?;
        let ends = after.into_iter().take(1).filter(|id| tokenizer.is_special(*id)).collect();
        Ok(Self { language_model, template, ends, said: Vec::new(), request, pending_images: Vec::new() })
    }

    pub fn language_model(&self) -> &LanguageModel {
        self.language_model
    }

    /// Whether the model has a token that ends an answer, so that it need not go on to the most tokens.
    pub fn can_end(&self) -> bool {
        !self.ends.is_empty() || !self.language_model.model.eos.is_empty()
    }

    /// Whether the model has no template of its own.
    pub fn is_plain(&self) -> bool {
        self.template.is_plain()
    }

    /// Shows the model an image, with what is said next.
    ///
    /// # Errors
    /// Of the kind Request where it sees none.
    #[cfg(feature = "images")]
    pub fn add_image(&mut self, image: &crate::image::Image) -> Result<()> {
        self.pending_images.push(self.language_model.encode_image(image)?);
        Ok(())
    }

    /// Says something to the model. What it answers becomes a part of the conversation once it is dropped, as
    /// far as it came; where it fails or is given up before its first token, it is as if nothing had been
    /// said.
    ///
    /// # Errors
    /// Of the kind Request where the template refuses the conversation or the context cannot hold it.
    pub fn say(&mut self, text: impl Into<String>) -> Result<Answer<'_>> {
        let mut said = self.said.clone();
        let images = std::mem::take(&mut self.pending_images);
        said.push(Message { images, ..Message::new("user", text) });
        self.answer(said)
    }

    /// Has the last message answered anew, by another seed.
    pub fn regenerate(&mut self) -> Result<Answer<'_>> {
        let mut said = self.said.clone();
        said.pop_if(|message| message.role == "assistant");
        if said.last().is_none_or(|message| message.role != "user") {
            return Err(Error::request("nothing was said that could be answered anew"));
        }
        // Else chance would give the same.
        self.request.sampling.seed = self.request.sampling.seed.wrapping_add(1);
        self.answer(said)
    }

    /// The answer to what was said, if that is `said`, of which the oldest turns may be forgotten.
    fn answer(&mut self, mut said: Vec<Message>) -> Result<Answer<'_>> {
        let (prompt, images, forgotten) = self.prompt(&mut said)?;
        let Self { language_model, template, ends, said: before, request, .. } = self;
        let LanguageModel { engine, tokenizer, .. } = &mut **language_model;
        let whole = Prompt { tokens: &prompt, images: &images };
        let generation = engine.generate(whole, request.sampling.clone(), request.max_tokens)?;
        let mut stops = request.stop.clone();
        stops.extend(template.stop().map(str::to_owned));
        let text = Text::new(generation, tokenizer.stream(&prompt), &stops).until(ends);
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

    /// A conversation's tokens, and the images among them, without its oldest turns where these leave no room
    /// for an answer, and how many messages these were.
    fn prompt(&self, said: &mut Vec<Message>) -> Result<(Vec<u32>, Vec<Placed>, usize)> {
        let LanguageModel { model, tokenizer, engine } = &*self.language_model;
        let context = engine.context() as usize;
        let room = self.request.max_tokens.min(context / 4).max(1);
        let first = usize::from(said.first().is_some_and(|message| message.role == "system"));
        let mut forgotten = 0;
        loop {
            let text = self.template.render(said, true)?;
            // A template writes down all that a text begins with.
            let tokens = model.begun(tokenizer.encode(&text, self.template.is_plain())?);
            let images: Vec<Features> = said.iter().flat_map(|message| message.images.clone()).collect();
            let (tokens, images) = self.language_model.place(tokens, &images)?;
            // What was just said stays, and with it the template's right to refuse it.
            let turns = said.len() - first;
            if tokens.len() + room <= context || turns < 3 {
                return Ok((tokens, images, forgotten));
            }
            said.drain(first..first + 2);
            forgotten += 2;
        }
    }
}

/// An answer in the making: an iterator of its pieces, from its first word on.
pub struct Answer<'a> {
    text: Text<'a>,
    said: &'a mut Vec<Message>,
    /// What was said before it was asked for.
    before: Vec<Message>,
    /// Tokens of the conversation up to it.
    pub prompt_tokens: usize,
    /// The oldest messages that the context has no more room for.
    pub forgotten: usize,
    is_begun: bool,
    failed: bool,
}

impl<'a> Answer<'a> {
    pub fn text(&self) -> &Text<'a> {
        &self.text
    }

    /// As [`Text::read`].
    pub fn read(&mut self) -> Result<Option<(usize, usize)>> {
        let outcome = self.text.read();
        self.failed |= outcome.is_err();
        outcome
    }

    /// What is held back, for who takes no more pieces.
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
