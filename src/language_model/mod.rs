//! Models that generate text: what the command line is built on, and what programs embed.

mod conversation;
mod detokenizer;
mod images;
mod stopping;
mod text;

pub use conversation::{Answer, Conversation};
pub use detokenizer::Detokenizer;
pub use images::place;
pub use text::Text;

use crate::{
    backend::Device,
    engine::{Engine, EngineOptions, Prompt},
    error::Result,
    model::Model,
    sampling::Sampling,
    tokenizer::Tokenizer,
};
use stopping::Stopping;

/// A model, its tokenizer, and the engine that it was loaded into.
pub struct LanguageModel {
    pub model: Model,
    pub tokenizer: Tokenizer,
    pub engine: Engine,
}

/// A request for a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub sampling: Sampling,
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// The text ends before the first occurrence of any of these.
    pub stop: Vec<String>,
}

impl Default for Request {
    /// At most 256 tokens, sampled with [`Sampling::default`]. The same prompt gives the same text each time;
    /// another `sampling.seed` gives another text.
    fn default() -> Self {
        Self { sampling: Sampling::default(), max_tokens: 256, stop: Vec::new() }
    }
}

impl LanguageModel {
    /// Opens a model and loads it onto the best device. The model is a folder, a .gguf file, or, with the
    /// feature `hub`, a name on the Hub, which is downloaded unless it is in the Hub's cache.
    ///
    /// # Errors
    /// Says in a sentence what is wrong with the files, the network, the device or the memory.
    pub fn open(name: &str) -> Result<Self> {
        #[cfg(feature = "hub")]
        let (path, name) = {
            let located = crate::hub::locate(name, &|_| (), &|_, _| ())?;
            (located.path, located.name)
        };
        #[cfg(not(feature = "hub"))]
        let (path, name) = (name, None);
        let (model, tokenizer) = Model::open(path.as_ref())?;
        let name = name.unwrap_or(model.name);
        Self::load(Model { name, ..model }, tokenizer, Device::best()?, EngineOptions::default())
    }

    /// Loads the small model that is built into the program onto the best device.
    pub fn built_in() -> Result<Self> {
        let (model, tokenizer) = Model::built_in()?;
        Self::load(model, tokenizer, Device::best()?, EngineOptions::default())
    }

    /// Loads an opened model onto a device, such as an application's own ([`Device::from_wgpu`]).
    pub fn load(model: Model, tokenizer: Tokenizer, device: Device, options: EngineOptions) -> Result<Self> {
        let engine = Engine::load(&model, device, options, &|_, _| ())?;
        Ok(Self { model, tokenizer, engine })
    }

    /// Continues a text, which may contain special tokens. An empty text becomes the model's start token.
    pub fn generate(&mut self, prompt: &str, request: &Request) -> Result<Text<'_>> {
        let tokens = self.model.begun(self.tokenizer.encode(prompt, true)?);
        self.generate_from(&tokens, request)
    }

    /// Continues a text given as token ids, with images in the place of some.
    pub fn generate_from<'p>(
        &mut self,
        prompt: impl Into<Prompt<'p>>,
        request: &Request,
    ) -> Result<Text<'_>> {
        let prompt = prompt.into();
        let generation = self.engine.generate(prompt, request.sampling.clone(), request.max_tokens)?;
        let stream = self.tokenizer.stream(prompt.tokens);
        Ok(Text::new(generation, Detokenizer::new(stream, &request.stop, Vec::new())))
    }

    /// Starts a conversation with the model's chat template or, if it has none, in the plain form of "User:
    /// …" and "Assistant: …".
    pub fn chat(&mut self, request: Request) -> Result<Conversation<'_>> {
        Conversation::new(self, request)
    }
}
