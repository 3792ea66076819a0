//! Prompts that outlive the engine: their keys and values in a file, so that another run of the program need
//! not read them again.
//!
//! The file is one of safetensors: `tokens` `[count]` are the prompt's ids, `adapters` the scales of the
//! model's adapters, `blocks` `[count / 32, bytes]` is what the blocks of the cache hold, as the device's
//! programs have it in memory. The metadata's `origin`
//! is a hash of everything else that this follows from: with any other model, device, driver or version the
//! bits would differ, and are refused. `checksum` is a hash of both tensors: damage is refused, too.

use super::{Engine, Prompt};
use crate::{
    backend::{Device, wait},
    buffers::BLOCK,
    error::{Error, Result},
    model::Model,
    plan::Plans,
    weights::Adapter,
};
use safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};
use std::{
    collections::HashMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
};

/// The beginning of a prompt, and what the cache held of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedPrompt {
    /// A whole number of blocks.
    tokens: Vec<u32>,
    /// The scales of adapters that it was computed with.
    adapters: Vec<f32>,
    /// What the blocks hold, one after the other.
    blocks: Vec<u8>,
    origin: String,
}

impl SavedPrompt {
    /// The ids of the tokens whose keys and values it holds.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The scales of the model's adapters that they were computed with.
    pub fn adapters(&self) -> &[f32] {
        &self.adapters
    }

    /// Writes it to a file, which appears once it is whole.
    ///
    /// # Errors
    /// Of the kind Run if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let count = self.tokens.len() / BLOCK as usize;
        let shape = vec![count, self.blocks.len().checked_div(count).unwrap_or(0)];
        let tokens = TensorView::new(Dtype::U32, vec![self.tokens.len()], bytemuck::cast_slice(&self.tokens));
        let blocks = TensorView::new(Dtype::U8, shape, &self.blocks);
        let adapters = vec![self.adapters.len()];
        let adapters = TensorView::new(Dtype::F32, adapters, bytemuck::cast_slice(&self.adapters));
        let tensors = [("tokens", tokens), ("adapters", adapters), ("blocks", blocks)]
            .map(|(name, tensor)| (name, tensor.expect("a shape")));
        let metadata = [("origin", self.origin.clone()), ("checksum", self.checksum())];
        let metadata: HashMap<_, _> = metadata.map(|(name, value)| (name.to_owned(), value)).into();
        // It writes to another name first.
        serialize_to_file(tensors, Some(metadata), path)
            .map_err(|e| Error::run(format!("{} cannot be written: {e}", path.display())).because(e))
    }

    fn checksum(&self) -> String {
        let mut hasher = DefaultHasher::new();
        let adapters: &[u8] = bytemuck::cast_slice(&self.adapters);
        (&self.tokens, adapters, &self.blocks).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// Reads it from a file.
    ///
    /// # Errors
    /// Of the kind Request if the file cannot be read, or holds no saved prompt.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |why: &str| Error::request(format!("{} is not a saved prompt: {why}", path.display()));
        // Other kinds, such as pipes, may never end.
        if !path.is_file() {
            return Err(Error::request(format!("{} is not there, or is no file", path.display())));
        }
        let file = fs::read(path)
            .map_err(|e| Error::request(format!("{} cannot be read: {e}", path.display())).because(e))?;
        let (_, header) = SafeTensors::read_metadata(&file).map_err(|e| wrong(&e.to_string()).because(e))?;
        let said = |name: &str| {
            let said = header.metadata().as_ref().and_then(|metadata| metadata.get(name)).cloned();
            said.ok_or_else(|| wrong(&format!("its metadata have no {name}")))
        };
        let tensors = SafeTensors::deserialize(&file).map_err(|e| wrong(&e.to_string()).because(e))?;
        let tensor = |name: &str, dtype| match tensors.tensor(name) {
            Ok(tensor) if tensor.dtype() == dtype => Ok(tensor),
            _ => Err(wrong(&format!("it has no {name} of the type {dtype:?}"))),
        };
        let (tokens, blocks) = (tensor("tokens", Dtype::U32)?, tensor("blocks", Dtype::U8)?);
        let tokens: Vec<u32> = bytemuck::pod_collect_to_vec(tokens.data());
        if blocks.shape().first() != Some(&(tokens.len() / BLOCK as usize))
            || !tokens.len().is_multiple_of(BLOCK as usize)
        {
            return Err(wrong("it has other blocks than its tokens need"));
        }
        let adapters = bytemuck::pod_collect_to_vec(tensor("adapters", Dtype::F32)?.data());
        let saved = Self { tokens, adapters, blocks: blocks.data().to_vec(), origin: said("origin")? };
        match saved.checksum() == said("checksum")? {
            true => Ok(saved),
            false => Err(wrong("its contents are not those that were saved")),
        }
    }
}

impl Engine {
    /// Copies what the cache holds of a prompt without images: its beginning, as far as it is there. Only
    /// whole blocks that a prefill wrote are.
    ///
    /// # Errors
    /// If the device fails.
    pub fn save_prompt<'p>(&mut self, prompt: impl Into<Prompt<'p>>) -> Result<SavedPrompt> {
        let Prompt { tokens, adapters, .. } = prompt.into();
        let adapters = adapters.unwrap_or(&self.adapter_scales).to_vec();
        let numbers = self.scheduler.blocks().find_text(tokens, &adapters);
        let copied = wait(async {
            // Some may come back from the host's memory.
            self.kept_blocks.carry_out(self.scheduler.moves(), &mut *self.backend).await?;
            let mut blocks = Vec::new();
            for number in &numbers {
                blocks.extend(self.backend.read_block(*number).await?);
            }
            Ok(blocks)
        });
        self.scheduler.blocks().release(&numbers);
        let tokens = tokens[..numbers.len() * BLOCK as usize].to_vec();
        Ok(SavedPrompt { tokens, adapters, blocks: copied?, origin: self.origin.clone() })
    }

    /// Puts what was saved into the cache, where prompts that begin with it find it. Returns the number of
    /// its tokens that the cache has now: as many as it has room for beside what runs.
    ///
    /// # Errors
    /// Of the kind Request if another model, device, driver or version saved it; if the device fails.
    pub fn restore_prompt(&mut self, saved: &SavedPrompt) -> Result<usize> {
        let block_bytes = self.plans().block_bytes() as usize;
        let bytes = saved.tokens.len() / BLOCK as usize * block_bytes;
        if saved.origin != self.origin || saved.blocks.len() != bytes {
            return Err(Error::request(
                "the prompt was saved with another model, device, driver or version of wgpt, which would \
                 give other bits: save it again",
            ));
        }
        let taken = self.scheduler.blocks().take_text(&saved.tokens, &saved.adapters);
        let numbers: Vec<u32> = taken.iter().map(|(number, _)| *number).collect();
        let written = wait(async {
            self.kept_blocks.carry_out(self.scheduler.moves(), &mut *self.backend).await?;
            for ((number, was_found), bytes) in taken.iter().zip(saved.blocks.chunks(block_bytes)) {
                if !was_found {
                    self.backend.write_block(*number, bytes)?;
                }
            }
            Ok(numbers.len() * BLOCK as usize)
        });
        if written.is_err() {
            self.scheduler.blocks().forget_text(&saved.tokens, &saved.adapters);
        }
        self.scheduler.blocks().release(&numbers);
        written
    }

    /// Forgets what the cache holds of a prompt. Returns the number of tokens. Sequences that run keep what
    /// they use.
    pub fn forget_prompt<'p>(&mut self, prompt: impl Into<Prompt<'p>>) -> usize {
        let Prompt { tokens, adapters, .. } = prompt.into();
        let adapters = adapters.unwrap_or(&self.adapter_scales);
        self.scheduler.blocks().forget_text(tokens, adapters) * BLOCK as usize
    }
}

/// What keys and values follow from besides the tokens, as a hash: the program, the device, how it computes,
/// the architecture, and the weights, of which each tensor's name, shape and format count, and its first
/// and last bytes: whoever trains a model changes all of them, and few pages of a mapped file are read.
pub fn origin(model: &Model, device: &Device, plans: &Plans) -> String {
    const SOME: usize = 64;
    let mut hasher = DefaultHasher::new();
    env!("WGPT_VERSION").hash(&mut hasher);
    device.computes_as().hash(&mut hasher);
    format!("{:?}", model.architecture).hash(&mut hasher);
    for plan in &plans.plans {
        plans.listing(plan.phase).to_string().hash(&mut hasher);
    }
    for (name, entry) in model.checkpoint.entries() {
        (name, &entry.dtype, &entry.shape).hash(&mut hasher);
        let bytes = entry.tensor.as_ref().map_or(&[][..], |tensor| tensor.bytes());
        let some = bytes.len().min(SOME);
        (&bytes[..some], &bytes[bytes.len() - some..]).hash(&mut hasher);
    }
    for tensor in model.adapters.iter().flat_map(Adapter::tensors) {
        (&tensor.name, tensor.bytes()).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}
