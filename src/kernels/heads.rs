//! Shared by the attention kernels: the head layout, and which positions a row attends to.

use super::{
    STEP,
    kv::{Cache, CachePart},
};
use crate::{
    buffers::{Rows, Use},
    memory::Memory,
    step::{Row, Step},
    weights::Vector,
};
use std::ops::Range;

/// The operands of attention: query heads, the KV cache, and the layer's scale and window.
pub(super) struct Heads {
    /// Query heads.
    pub count: u32,
    /// `[rows, (count + 2 n_kv_heads) · head_dim]`
    pub qkv: Rows,
    pub cache: Cache,
    /// The scale of scores, and the window or 0.
    pub scalars: Vector,
}

impl Heads {
    pub fn new(count: u32, qkv: Rows, cache: &Cache, scalars: Vector) -> Self {
        assert_eq!(count % cache.n_kv_heads, 0, "{count} heads over {} key heads", cache.n_kv_heads);
        assert_eq!(scalars.at, 0, "the layer's vectors begin with scale and window");
        Self { count, qkv, cache: cache.clone(), scalars }
    }

    /// Every buffer that is read.
    pub fn uses(&self) -> impl Iterator<Item = Use> {
        let parts = self.cache.parts.iter().map(|part| Use::Read(part.buffer));
        std::iter::once(Use::Read(self.qkv.buffer)).chain(parts).chain([Use::Read(self.scalars.buffer)])
    }

    /// What the programs for a part of the cache bind, in order of binding.
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

    /// The number of query heads that share a key head.
    pub fn group(&self) -> u32 {
        self.count / self.cache.n_kv_heads
    }

    /// The number of query heads that attend to a part of the cache.
    pub fn of(&self, part: &CachePart) -> u32 {
        part.heads.len() as u32 * self.group()
    }

    /// The key head that a query head attends to, the index of the cache part that holds it, and that part.
    pub fn part_of(&self, head: u32) -> (u32, usize, &CachePart) {
        let kv_head = head / self.group();
        let mut parts = self.cache.parts.iter().enumerate();
        let (index, part) =
            parts.find(|(_, part)| part.heads.contains(&kv_head)).expect("the parts hold all heads");
        (kv_head, index, part)
    }

    /// The import for interface `heads`, with those that it needs: what shaders know of the heads, of the
    /// rows' positions and of a part of the cache.
    pub fn imports(&self, part: &CachePart) -> Vec<(&'static str, &'static str)> {
        let queries = match self.dim().is_multiple_of(4) {
            true => include_str!("../../shaders/queries/fours.wgsl"),
            false => include_str!("../../shaders/queries/ones.wgsl"),
        };
        let heads = include_str!("../../shaders/attention/heads.wgsl");
        let mut imports = vec![("heads", heads), STEP, REACH, ("queries", queries)];
        imports.extend(part.format.read(self.dim()));
        imports
    }

    /// The constants of interface `heads`.
    pub fn constants(&self, part: &CachePart, y: Rows) -> Vec<(&'static str, f64)> {
        vec![
            ("HEAD_DIM", self.dim().into()),
            ("GROUP", self.group().into()),
            ("FIRST_HEAD", (part.heads.start * self.group()).into()),
            ("STRIDE", self.qkv.stride().into()),
            ("KV_WIDTH", part.width().into()),
            ("Y_STRIDE", y.stride().into()),
        ]
    }
}

/// The import for interface `reach`: name and source.
pub(super) const REACH: (&str, &str) = ("reach", include_str!("../../shaders/attention/reach.wgsl"));

/// The positions that a row attends to.
pub(super) fn reach(step: &Step, row: &Row, window: f32) -> Range<u32> {
    let own = row.position + 1;
    let window = if window > 0.0 { window as u32 } else { own };
    own.saturating_sub(window)..step.attends_to(row) + 1
}

/// Turns scores into their softmax, in place.
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
