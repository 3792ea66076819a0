//! Images in prompts: each takes the place of as many tokens as the model gives one.

use super::LanguageModel;
#[cfg(feature = "images")]
use super::{Request, Text};
#[cfg(feature = "images")]
use crate::{engine::Prompt, image::Image};
use crate::{
    engine::{Features, Placed},
    error::{Error, Result},
};

#[cfg(feature = "images")]
impl LanguageModel {
    /// What stands for an image in this model's prompts.
    ///
    /// # Errors
    /// Of the kind Request where the model sees no images.
    pub fn encode_image(&mut self, image: &Image) -> Result<Features> {
        match &self.model.preprocessor {
            Some(preprocessor) => self.engine.encode_image(&preprocessor.pixels(image)),
            None => self.engine.encode_image(&[]),
        }
    }

    /// The same with images in it: where it names some, as models that see have a word for (`<image>`),
    /// there, else at its beginning.
    pub fn generate_with_images(
        &mut self,
        images: &[Image],
        prompt: &str,
        request: &Request,
    ) -> Result<Text<'_>> {
        let features = images.iter().map(|image| self.encode_image(image)).collect::<Result<Vec<_>>>()?;
        let tokens = self.model.begun(self.tokenizer.encode(prompt, true)?);
        let (tokens, images) = self.place(tokens, &features)?;
        self.generate_from(Prompt { tokens: &tokens, images: &images }, request)
    }
}

impl LanguageModel {
    /// A prompt's ids with images in it. Where it names some, by the model's token for one, each stands in
    /// its place, in order; where it names none, all stand at its beginning. Each takes the place of as many
    /// ids as the model gives one.
    ///
    /// # Errors
    /// Of the kind Request where it has places for more or fewer.
    pub fn place(&self, mut tokens: Vec<u32>, images: &[Features]) -> Result<(Vec<u32>, Vec<Placed>)> {
        let Some(vision) = &self.model.architecture.vision else { return Ok((tokens, Vec::new())) };
        let (each, named) = (vision.tokens(), tokens.iter().filter(|id| **id == vision.token).count());
        if named == 0 {
            // After what starts a text.
            let begins = usize::from(tokens.first().is_some_and(|first| self.tokenizer.is_special(*first)));
            tokens.splice(begins..begins, vec![vision.token; images.len()]);
        }
        // Among ids that came out of a prompt with images, as many name one as stand for it.
        let times = match named {
            0 => each,
            named if named == images.len() => each,
            named if named == images.len() * each => 1,
            named => {
                return Err(Error::request(format!(
                    "images given: {}, places for them in the prompt: {named}; give each its place, or \
                     none, and they come first",
                    images.len()
                )));
            }
        };
        let is_run = |ids: &[u32]| ids.iter().all(|id| *id == vision.token);
        let starts = tokens.iter().enumerate().filter(|(_, id)| **id == vision.token).step_by(each);
        if times == 1
            && !starts.map(|(at, _)| &tokens[at..]).all(|rest| rest.len() >= each && is_run(&rest[..each]))
        {
            return Err(Error::request(format!(
                "an image's {each} places in the prompt must follow each other"
            )));
        }
        let (mut all, mut placed, mut parts) = (Vec::new(), Vec::new(), 0);
        for id in tokens {
            if id != vision.token {
                all.push(id);
                continue;
            }
            if parts % each == 0 {
                placed.push(Placed { at: all.len(), features: images[parts / each].clone() });
            }
            all.extend(std::iter::repeat_n(id, times));
            parts += times;
        }
        Ok((all, placed))
    }
}
