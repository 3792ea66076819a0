//! Images in prompts. Each takes the place of several tokens; the model determines how many.

use super::LanguageModel;
#[cfg(feature = "images")]
use super::{Request, Text};
#[cfg(feature = "images")]
use crate::{engine::Prompt, image::Image};
use crate::{
    engine::{Features, Placed},
    error::{Error, Result},
    model::Model,
    tokenizer::Tokenizer,
};

#[cfg(feature = "images")]
impl LanguageModel {
    /// The embeddings of an image, which stand for it in prompts of this model.
    ///
    /// # Errors
    /// Of the kind Request if the model takes no images.
    pub fn encode_image(&mut self, image: &Image) -> Result<Features> {
        match &self.model.preprocessor {
            Some(preprocessor) => self.engine.encode_image(&preprocessor.pixels(image)),
            None => self.engine.encode_image(&[]),
        }
    }

    /// The same as [`LanguageModel::generate`], with images. If the prompt contains the model's image token
    /// (such as `<image>`), each image takes the place of one of these. Otherwise all images come first.
    pub fn generate_with_images(
        &mut self,
        images: &[Image],
        prompt: &str,
        request: &Request,
    ) -> Result<Text<'_>> {
        let features = images.iter().map(|image| self.encode_image(image)).collect::<Result<Vec<_>>>()?;
        let tokens = self.model.begun(self.tokenizer.encode(prompt, true)?);
        let (tokens, images) = self.place(tokens, &features)?;
        self.generate_from(Prompt { tokens: &tokens, images: &images, adapters: None }, request)
    }
}

impl LanguageModel {
    /// Puts images into a prompt's ids: see [`place`].
    ///
    /// # Errors
    /// Those of [`place`].
    pub fn place(&self, tokens: Vec<u32>, images: &[Features]) -> Result<(Vec<u32>, Vec<Placed>)> {
        place(&self.model, &self.tokenizer, tokens, images)
    }
}

/// Puts images into a prompt's ids, and returns the new ids and where the images are. If the prompt contains
/// the model's image token, each image takes the place of one of these, in order. Otherwise all images come
/// first. The image token is repeated for each of the image's embeddings.
///
/// # Errors
/// Of the kind Request if the prompt has places for more or fewer images.
pub fn place(
    model: &Model,
    tokenizer: &Tokenizer,
    mut tokens: Vec<u32>,
    images: &[Features],
) -> Result<(Vec<u32>, Vec<Placed>)> {
    let Some(vision) = &model.architecture.vision else { return Ok((tokens, Vec::new())) };
    let (each, named) = (vision.tokens(), tokens.iter().filter(|id| **id == vision.token).count());
    if named == 0 {
        // After the start token, if there is one.
        let begins = usize::from(tokens.first().is_some_and(|first| tokenizer.is_special(*first)));
        tokens.splice(begins..begins, vec![vision.token; images.len()]);
    }
    // Ids from a prompt that already contains its images have as many image tokens as each image has
    // embeddings.
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
        return Err(Error::request(format!("an image's {each} places in the prompt must follow each other")));
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
