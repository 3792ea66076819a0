//! A model's files, opened but not loaded: config.json, weights, tokenizer, and the recommended sampling
//! settings.

use crate::{
    architecture::Architecture,
    defaults::{self, Defaults},
    demo,
    embedding::Pooling,
    error::{Error, Result},
    families,
    files::{read_json, read_text},
    tokenizer::{Settings, Tokenizer, gguf_role},
    weights::{Adapter, Bytes, Checkpoint, Format, Gguf, ModelTensors, Quantized, Split},
};
use serde_json::Value;
use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

/// A model that can be loaded onto a device.
pub struct Model {
    pub name: String,
    pub architecture: Architecture,
    pub tensors: ModelTensors,
    pub checkpoint: Checkpoint,
    /// Low-rank adapters of its weights.
    pub adapters: Vec<Adapter>,
    pub defaults: Defaults,
    /// The token that an otherwise empty prompt starts with.
    pub bos: Option<u32>,
    /// The token ids that end a text.
    pub eos: Vec<u32>,
    /// The Jinja template that turns a conversation into a prompt.
    pub chat_template: Option<String>,
    /// How hidden states become the embedding of a text, if the model's files say it.
    pub pooling: Option<Pooling>,
    /// Turns images into pixels, for a model that takes images.
    #[cfg(feature = "images")]
    pub preprocessor: Option<crate::image::Preprocessor>,
    /// `bos_token`, `eos_token` and so on, by the names that templates use.
    pub special_tokens: BTreeMap<String, String>,
}

impl Model {
    /// Opens a Hugging Face folder or a GGUF file, with its tokenizer.
    ///
    /// # Errors
    /// Of the kind Model where a file is missing, damaged or not supported.
    pub fn open(path: &Path) -> Result<(Self, Tokenizer)> {
        if is_gguf(path) {
            let gguf = Gguf::open(path)?;
            return Ok((Self::from_gguf(stem(path), &gguf)?, Tokenizer::from_gguf(&gguf)?));
        }
        let folder = path;
        let model = Self::open_weights(folder)?;
        let tokenizer = Tokenizer::open(folder, &Settings::read(folder, model.architecture.family)?)?;
        Ok((model, tokenizer))
    }

    /// Opens a Hugging Face folder or a GGUF file without its tokenizer.
    ///
    /// # Errors
    /// Of the kind Model where a file is missing, damaged or not supported.
    pub fn open_weights(path: &Path) -> Result<Self> {
        if is_gguf(path) {
            return Self::from_gguf(stem(path), &Gguf::open(path)?);
        }
        let folder = path;
        if !folder.is_dir() {
            return Err(Error::model(format!(
                "the model {} is neither a .gguf file nor a folder with config.json, *.safetensors and a \
                 tokenizer",
                folder.display()
            )));
        }
        let config = folder.join("config.json");
        if !config.is_file() {
            return Err(Error::model(format!(
                "{} holds no config.json: it is not a model's folder",
                folder.display()
            )));
        }
        let config = read_json(&config)?;
        let generation = folder.join("generation_config.json");
        let generation = if generation.exists() { Defaults::read(&generation)? } else { Defaults::default() };
        let name =
            folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into());
        let config_name = folder.join("config.json").display().to_string();
        // The config comes first: its errors are easier to understand than those of mismatched weights.
        let (architecture, mut tensors) = families::read(&config_name, &config)?;
        let checkpoint = Checkpoint::open(folder)?;
        tensors.tie(&checkpoint);
        let model = Self::new(name, architecture, tensors, checkpoint, generation);
        let settings = Settings::read(folder, model.architecture.family)?;
        let chat_template = chat_template(folder, &settings.config)?;
        #[cfg(feature = "images")]
        let preprocessor = match model.architecture.vision {
            Some(ref vision) => Some(crate::image::Preprocessor::of(folder, vision.image_size)?),
            None => None,
        };
        Ok(Self {
            chat_template,
            pooling: Pooling::of_folder(folder)?,
            #[cfg(feature = "images")]
            preprocessor,
            special_tokens: settings.special_tokens,
            ..model
        })
    }

    /// The model in a GGUF file.
    ///
    /// # Errors
    /// Of the kind Model where the metadata is wrong or not supported.
    pub fn from_gguf(name: String, gguf: &Gguf) -> Result<Self> {
        let (architecture, tensors) = families::read_gguf(gguf)?;
        let chat_template = gguf.string("tokenizer.chat_template")?.map(str::to_owned);
        let model = Self::new(name, architecture, tensors, gguf.checkpoint.clone(), Defaults::default());
        let tokens = gguf.strings("tokenizer.ggml.tokens")?.unwrap_or_default();
        let roles = [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")];
        let mut special_tokens = BTreeMap::new();
        for (name, role) in roles {
            let token = gguf_role(gguf, role)?.and_then(|id| tokens.get(id as usize));
            special_tokens.extend(token.map(|token| (format!("{name}_token"), token.to_string())));
        }
        Ok(Self { chat_template, pooling: Pooling::of_gguf(gguf)?, special_tokens, ..model })
    }

    /// The model built into the binary, with its tokenizer.
    pub fn built_in() -> Result<(Self, Tokenizer)> {
        let config = serde_json::from_str(demo::CONFIG).expect("the built-in config.json is JSON");
        let (architecture, tensors) = families::read("the built-in config.json", &config)?;
        let mut checkpoint = Checkpoint::default();
        checkpoint.add("the built-in model.safetensors", Bytes::new(demo::WEIGHTS))?;
        let model = Self::new(demo::NAME.to_owned(), architecture, tensors, checkpoint, Defaults::default());
        Ok((model, Tokenizer::from_json("the built-in tokenizer.json", demo::TOKENIZER)?))
    }

    pub(crate) fn new(
        name: String,
        architecture: Architecture,
        tensors: ModelTensors,
        checkpoint: Checkpoint,
        generation: Defaults,
    ) -> Self {
        let vocab_size = architecture.vocab_size;
        let within = |field: &str, ids: &[u32]| -> Vec<u32> {
            let is_known = |id: &u32| *id < vocab_size || defaults::pass_over(field, id, vocab_size);
            ids.iter().copied().filter(is_known).collect()
        };
        let eos = if generation.eos.is_empty() { &architecture.eos } else { &generation.eos };
        let eos = within("eos_token_id", eos);
        let bos = within("bos_token_id", &architecture.bos).first().copied();
        Self {
            name,
            architecture,
            tensors,
            checkpoint,
            adapters: Vec::new(),
            defaults: generation.within(vocab_size, &eos),
            bos,
            eos,
            chat_template: None,
            pooling: None,
            #[cfg(feature = "images")]
            preprocessor: None,
            special_tokens: BTreeMap::new(),
        }
    }

    /// All ids that end a text by any of the model's files. [`Model::eos`] are those of the first file that
    /// has any, as in transformers' `generate`.
    pub fn all_eos(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let of_tokenizer = self.special_tokens.get("eos_token").and_then(|token| tokenizer.id(token));
        let of_config = self.architecture.eos.iter().copied();
        let all = self.eos.iter().copied().chain(of_config).chain(of_tokenizer);
        all.filter(|id| *id < self.architecture.vocab_size).collect()
    }

    /// A prompt's ids. An empty prompt becomes the start token, if the model has one.
    pub fn begun(&self, tokens: Vec<u32>) -> Vec<u32> {
        if tokens.is_empty() { self.bos.into_iter().collect() } else { tokens }
    }

    /// Adds a low-rank adapter: a folder of PEFT's, or a GGUF file. `scale`: how much of it applies where a
    /// prompt does not say it.
    ///
    /// # Errors
    /// Of the kind Model if it is damaged, not supported, or for another model.
    pub fn adapt(&mut self, path: &Path, scale: f32) -> Result<()> {
        self.adapters.push(Adapter::open(path, scale, &self.tensors)?);
        Ok(())
    }

    /// Sets the weights to be packed as `to` when they are loaded.
    pub fn quantize(&mut self, to: Format) -> Quantized {
        self.tensors.quantize(to, &self.checkpoint)
    }
}

/// A folder's chat template: chat_template.jinja, else the one in tokenizer_config.json, else
/// chat_template.json. Where a file holds several templates, the one named `default`.
fn chat_template(folder: &Path, tokenizer: &Value) -> Result<Option<String>> {
    let jinja = folder.join("chat_template.jinja");
    if jinja.is_file() {
        return Ok(Some(read_text(&jinja)?));
    }
    let is_default = |one: &&Value| one["name"] == "default";
    let apart = folder.join("chat_template.json");
    let apart = if apart.is_file() { read_json(&apart)? } else { Value::Null };
    let template = [tokenizer, &apart].map(|config| &config["chat_template"]);
    Ok(match template.into_iter().find(|value| !value.is_null()).unwrap_or(&Value::Null) {
        Value::Array(several) => several.iter().find(is_default).and_then(|one| one["template"].as_str()),
        one => one.as_str(),
    }
    .map(str::to_owned))
}

/// A file's name without its extension and without the number of its part.
fn stem(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str());
    match name.and_then(Split::parse) {
        Some(split) => split.stem.to_owned(),
        None => path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
    }
}

/// Whether a file is GGUF, by its extension or its first four bytes.
pub(crate) fn is_gguf(path: &Path) -> bool {
    let begins_so = || {
        let mut magic = [0; 4];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
        read.is_ok() && magic == *b"GGUF"
    };
    path.is_file() && (path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) || begins_so())
}
