//! What a model reads: tokens, and images in the place of some.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// An image as the language model takes it: an embedding for each token that it stands for, `[tokens,
/// hidden]`. A copy shares the values.
#[derive(Clone, Debug)]
pub struct Features {
    values: Arc<Vec<f32>>,
    width: usize,
    /// Of the values: features are compared value by value only where this is equal.
    hash: u64,
}

impl Features {
    /// From `[tokens, width]` values.
    pub fn new(values: Vec<f32>, width: usize) -> Self {
        let mut hasher = DefaultHasher::new();
        bytemuck::cast_slice::<f32, u8>(&values).hash(&mut hasher);
        Self { values: Arc::new(values), width, hash: hasher.finish() }
    }

    /// `[tokens, hidden]`, one token's after the other's.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// How many tokens it stands for.
    pub fn tokens(&self) -> usize {
        self.values.len() / self.width
    }

    /// One token's embedding, `[hidden]`.
    pub fn token(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.width]
    }
}

impl PartialEq for Features {
    /// Equal to the bit.
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
    /// The first token in whose place it stands.
    pub at: usize,
    pub features: Features,
}

/// A prompt: tokens, and images in the place of some.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    pub tokens: &'a [u32],
    /// In the order of their places.
    pub images: &'a [Placed],
}

impl<'a> From<&'a [u32]> for Prompt<'a> {
    fn from(tokens: &'a [u32]) -> Self {
        Self { tokens, images: &[] }
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
