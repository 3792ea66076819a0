//! What the kernels of attention share: heads, and which positions a row sees.

use super::{Cache, CachePart};
use crate::{plan::Rows, step::Row};
use std::ops::Range;

/// Query heads over a cache's key heads.
pub(super) struct Heads {
    pub count: u32,
    pub cache: Cache,
}

impl Heads {
    pub fn new(count: u32, cache: &Cache) -> Self {
        assert_eq!(count % cache.n_kv_heads, 0, "{count} heads over {} key heads", cache.n_kv_heads);
        Self { count, cache: cache.clone() }
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
    pub fn constants(&self, part: &CachePart, qkv: Rows) -> Vec<(&'static str, f64)> {
        vec![
            ("GROUP", self.group().into()),
            ("FIRST_HEAD", (part.heads.start * self.group()).into()),
            ("STRIDE", qkv.stride().into()),
            ("WIDTH", part.width(self.dim()).into()),
        ]
    }
}

/// The interface `reach`.
pub(super) const REACH: (&str, &str) = ("reach", include_str!("../../shaders/attention/reach.wgsl"));

/// The positions that a row sees.
pub(super) fn reach(row: &Row, window: f32) -> Range<u32> {
    let end = row.position + 1;
    let window = if window > 0.0 { window as u32 } else { end };
    end.saturating_sub(window)..end
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
