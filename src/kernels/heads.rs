//! What the kernels of attention share: heads, and which positions a row sees.

use super::{Cache, CachePart};
use crate::{
    memory::Memory,
    plan::{Rows, Use},
    step::{Row, Step},
    weights::Vector,
};
use std::ops::Range;

/// Query heads over a cache's key heads, and what says how they look at these.
pub(super) struct Heads {
    pub count: u32,
    pub qkv: Rows,
    pub cache: Cache,
    /// The scale of scores and the window, or 0.
    pub scalars: Vector,
}

impl Heads {
    pub fn new(count: u32, qkv: Rows, cache: &Cache, scalars: Vector) -> Self {
        assert_eq!(count % cache.n_kv_heads, 0, "{count} heads over {} key heads", cache.n_kv_heads);
        assert_eq!(scalars.at, 0, "the layer's vectors begin with scale and window");
        Self { count, qkv, cache: cache.clone(), scalars }
    }

    /// All that is read.
    pub fn uses(&self) -> impl Iterator<Item = Use> {
        let parts = self.cache.parts.iter().map(|part| Use::Read(part.buffer));
        std::iter::once(Use::Read(self.qkv.buffer)).chain(parts).chain([Use::Read(self.scalars.buffer)])
    }

    /// What the programs of a part bind: what they read, then what they write.
    pub fn bound(&self, part: &CachePart, y: Rows) -> Vec<Use> {
        let read = [self.qkv.buffer, part.buffer, self.scalars.buffer].map(Use::Read);
        read.into_iter().chain([Use::Write(y.buffer)]).collect()
    }

    /// The scale of scores, and the window or 0.
    pub fn scalars(&self, memory: &Memory) -> [f32; 2] {
        self.scalars.of(memory).try_into().expect("scale and window")
    }

    pub fn dim(&self) -> u32 {
        self.cache.head_dim
    }

    /// Query heads that share a key head.
    pub fn group(&self) -> u32 {
        self.count / self.cache.n_kv_heads
    }

    /// Query heads of a part of the cache.
    pub fn of(&self, part: &CachePart) -> u32 {
        part.heads.len() as u32 * self.group()
    }

    /// The part of the cache that holds what a query head looks at, and where in a slot its keys start.
    pub fn part_of(&self, head: u32) -> (usize, &CachePart, usize) {
        let kv_head = head / self.group();
        let mut parts = self.cache.parts.iter().enumerate();
        let (index, part) =
            parts.find(|(_, part)| part.heads.contains(&kv_head)).expect("the parts hold all heads");
        (index, part, ((kv_head - part.heads.start) * self.dim()) as usize)
    }

    /// The interface `values`: how shaders read heads.
    pub fn values(&self) -> (&'static str, &'static str) {
        let source = match self.dim().is_multiple_of(4) {
            true => include_str!("../../shaders/values/fours.wgsl"),
            false => include_str!("../../shaders/values/ones.wgsl"),
        };
        ("values", source)
    }

    /// What shaders are told of the heads of a part.
    pub fn constants(&self, part: &CachePart) -> Vec<(&'static str, f64)> {
        vec![
            ("GROUP", self.group().into()),
            ("FIRST_HEAD", (part.heads.start * self.group()).into()),
            ("STRIDE", self.qkv.stride().into()),
            ("WIDTH", part.width(self.dim()).into()),
        ]
    }
}

/// The interface `reach`.
pub(super) const REACH: (&str, &str) = ("reach", include_str!("../../shaders/attention/reach.wgsl"));

/// The positions that a row sees.
pub(super) fn reach(step: &Step, row: &Row, window: f32) -> Range<u32> {
    let own = row.position + 1;
    let window = if window > 0.0 { window as u32 } else { own };
    own.saturating_sub(window)..step.sees(row) + 1
}

/// Scores → weights that add up to one.
pub(super) fn softmax(scores: &mut [f32]) {
    let top = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut total = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - top).exp();
        total += *score;
    }
    for score in scores {
        *score /= total;
    }
}
