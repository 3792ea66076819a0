//! A layer's KV cache: what it holds, in which layout, and how kernels read and write it. Other kernels know
//! the layout only through what is here and through the shader interfaces `kv_read` and `kv_write`.

use crate::buffers::Buffer;
use std::{borrow::Cow, ops::Range};

/// How the numbers of a cache are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    F32,
}

/// A layer's KV cache. A slot is the place of one token. In each part, it holds the keys of all key-value
/// heads of the part, then their values: `[slots, 2, heads · head_dim]`.
#[derive(Clone, Debug)]
pub struct Cache {
    /// One part, or several if a binding cannot hold all heads.
    pub parts: Vec<CachePart>,
    pub n_kv_heads: u32,
    pub head_dim: u32,
}

/// The part of a KV cache that holds some of the key heads.
#[derive(Clone, Debug)]
pub struct CachePart {
    pub buffer: Buffer,
    pub format: KvFormat,
    pub heads: Range<u32>,
    pub head_dim: u32,
}

/// A head's keys, or its values, of consecutive slots: row i is `values[i · stride..][..head_dim]`.
pub struct KvRows<'a> {
    pub values: Cow<'a, [f32]>,
    pub stride: usize,
}

impl KvFormat {
    /// Words of four bytes that a slot takes for keys, and for values, of `width` numbers each.
    pub fn slot_words(self, width: u32) -> u32 {
        match self {
            Self::F32 => 2 * width,
        }
    }

    /// The imports by which a program reads the cache of heads of this dimension: (interface, source).
    pub fn read(self, head_dim: u32) -> [(&'static str, &'static str); 2] {
        let Self::F32 = self;
        let fours = head_dim.is_multiple_of(4);
        let read = match fours {
            true => include_str!("../../shaders/kv/f32_fours.wgsl"),
            false => include_str!("../../shaders/kv/f32_ones.wgsl"),
        };
        [self.layout(), ("kv_read", read)]
    }

    /// The imports by which a program writes it.
    pub fn write(self) -> [(&'static str, &'static str); 2] {
        let Self::F32 = self;
        [self.layout(), ("kv_write", include_str!("../../shaders/kv/f32_write.wgsl"))]
    }

    fn layout(self) -> (&'static str, &'static str) {
        let Self::F32 = self;
        ("kv", include_str!("../../shaders/kv/f32.wgsl"))
    }
}

impl CachePart {
    /// Numbers in all keys (or in all values) of a slot.
    pub fn width(&self) -> u32 {
        self.heads.len() as u32 * self.head_dim
    }

    /// The words of a slot.
    pub fn slot_words(&self) -> u32 {
        self.format.slot_words(self.width())
    }

    /// The keys of a head in `count` slots from `slot` on. `cache` holds the words of the whole part.
    pub fn keys<'a>(&self, cache: &'a [f32], head: u32, slot: u32, count: usize) -> KvRows<'a> {
        self.rows(cache, self.start(head), slot, count)
    }

    /// The values of a head, likewise.
    pub fn values<'a>(&self, cache: &'a [f32], head: u32, slot: u32, count: usize) -> KvRows<'a> {
        self.rows(cache, self.width() as usize + self.start(head), slot, count)
    }

    /// Writes the keys and the values of all heads of the part into a slot.
    pub fn write(&self, cache: &mut [f32], slot: u32, keys: &[f32], values: &[f32]) {
        let KvFormat::F32 = self.format;
        let words = self.slot_words() as usize;
        let slot = &mut cache[slot as usize * words..][..words];
        let (k, v) = slot.split_at_mut(self.width() as usize);
        k.copy_from_slice(keys);
        v.copy_from_slice(values);
    }

    /// Where a head starts in the keys of a slot.
    fn start(&self, head: u32) -> usize {
        ((head - self.heads.start) * self.head_dim) as usize
    }

    fn rows<'a>(&self, cache: &'a [f32], at: usize, slot: u32, count: usize) -> KvRows<'a> {
        let KvFormat::F32 = self.format;
        let stride = self.slot_words() as usize;
        let len = count.saturating_sub(1) * stride + self.head_dim as usize;
        KvRows { values: Cow::Borrowed(&cache[slot as usize * stride + at..][..len]), stride }
    }
}
