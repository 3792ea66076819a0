//! The input of a model: tokens, and images that take the place of some tokens.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// An encoded image: an embedding for each token that it takes the place of, `[tokens, hidden]`. Clones share
/// the values.
#[derive(Clone, Debug)]
pub struct Features {
    values: Arc<Vec<f32>>,
    width: usize,
    /// A hash of the values, to compare them only if the hashes are equal.
    hash: u64,
}

impl Features {
    /// From `[tokens, width]` values.
    pub fn new(values: Vec<f32>, width: usize) -> Self {
        let mut hasher = DefaultHasher::new();
        bytemuck::cast_slice::<f32, u8>(&values).hash(&mut hasher);
        Self { values: Arc::new(values), width, hash: hasher.finish() }
    }

    /// The embeddings, `[tokens, hidden]`, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The number of tokens that the image takes the place of.
    pub fn tokens(&self) -> usize {
        self.values.len() / self.width
    }

    /// One token's embedding, `[hidden]`.
    pub fn token(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.width]
    }
}

impl PartialEq for Features {
    /// Compares the values bit for bit.
    fn eq(&self, other: &Self) -> bool {
        fn bits(of: &Features) -> &[u32] {
            bytemuck::cast_slice(&of.values)
        }
        self.hash == other.hash && (Arc::ptr_eq(&self.values, &other.values) || bits(self) == bits(other))
    }
}

impl Eq for Features {}

impl Hash for Features {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

/// An image in a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Placed {
    /// The index of the first token that the image takes the place of.
    pub at: usize,
    pub features: Features,
}

/// A prompt: tokens, images that take the place of some tokens, and the scales of adapters.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    pub tokens: &'a [u32],
    /// In the order of their positions.
    pub images: &'a [Placed],
    /// How much of each of the model's adapters applies. None: as much as was said when they were loaded.
    pub adapters: Option<&'a [f32]>,
}

impl<'a> From<&'a [u32]> for Prompt<'a> {
    fn from(tokens: &'a [u32]) -> Self {
        Self { tokens, images: &[], adapters: None }
    }
}
impl<'a> From<&'a Vec<u32>> for Prompt<'a> {
    fn from(tokens: &'a Vec<u32>) -> Self {
        tokens.as_slice().into()
    }
}
impl<'a, const N: usize> From<&'a [u32; N]> for Prompt<'a> {
    fn from(tokens: &'a [u32; N]) -> Self {
        tokens.as_slice().into()
    }
}

/// A prompt that owns what it is made of, for another thread.
#[derive(Clone, Debug, Default)]
pub struct OwnedPrompt {
    pub tokens: Vec<u32>,
    /// In the order of their positions.
    pub images: Vec<Placed>,
    /// How much of each of the model's adapters applies. None: as much as was said when they were loaded.
    pub adapters: Option<Vec<f32>>,
}

impl From<Vec<u32>> for OwnedPrompt {
    fn from(tokens: Vec<u32>) -> Self {
        Self { tokens, ..Self::default() }
    }
}

impl<'a> From<&'a OwnedPrompt> for Prompt<'a> {
    fn from(OwnedPrompt { tokens, images, adapters }: &'a OwnedPrompt) -> Self {
        Self { tokens, images, adapters: adapters.as_deref() }
    }
}
