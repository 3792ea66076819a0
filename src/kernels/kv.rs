//! A layer's KV cache: what it holds, in which layout, and how kernels read and write it. Other kernels know
//! the layout only through what is here and through the shader interfaces `kv_read` and `kv_write`
//! ([`KvFormat`]).

use crate::{buffers::Buffer, kv_format::KvFormat, simd::PackedRows, weights::Format};
use std::ops::Range;

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

impl Cache {
    /// What is said of it in a pass's note: nothing of f32.
    pub fn note(&self) -> String {
        match self.parts[0].format {
            KvFormat::F32 => String::new(),
            format => format!(", {} cache", format.name()),
        }
    }

    /// Bytes of a slot's keys and values.
    pub fn slot_bytes(&self) -> u64 {
        self.parts.iter().map(|part| 4 * u64::from(part.slot_words())).sum()
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

    /// The keys of a head in `count` slots from `slot` on, as they are stored. `cache` holds the words of the
    /// whole part.
    pub fn keys<'a>(&self, cache: &'a [f32], head: u32, slot: u32, count: usize) -> PackedRows<'a> {
        self.rows(cache, self.start(head), slot, count)
    }

    /// The values of a head, likewise.
    pub fn values<'a>(&self, cache: &'a [f32], head: u32, slot: u32, count: usize) -> PackedRows<'a> {
        self.rows(cache, self.width() as usize + self.start(head), slot, count)
    }

    /// A head's key in a slot.
    pub fn key(&self, cache: &[f32], head: u32, slot: u32) -> Vec<f32> {
        unpacked(self.keys(cache, head, slot, 1))
    }

    /// A head's value in a slot.
    pub fn value(&self, cache: &[f32], head: u32, slot: u32) -> Vec<f32> {
        unpacked(self.values(cache, head, slot, 1))
    }

    /// Writes the keys and the values of all heads of the part into a slot.
    pub fn write(&self, cache: &mut [f32], slot: u32, keys: &[f32], values: &[f32]) {
        let words = self.slot_words() as usize;
        let slot = &mut cache[slot as usize * words..][..words];
        self.format.pack(keys, slot, 0);
        self.format.pack(values, slot, self.width() as usize);
    }

    /// Where a head starts in the keys of a slot.
    fn start(&self, head: u32) -> usize {
        ((head - self.heads.start) * self.head_dim) as usize
    }

    /// What is stored in consecutive slots from number `at` of each on.
    fn rows<'a>(&self, cache: &'a [f32], at: usize, slot: u32, count: usize) -> PackedRows<'a> {
        let format = match self.format {
            KvFormat::F32 => Format::F32,
            KvFormat::F16 => Format::F16,
        };
        let row_bytes = 4 * self.slot_words() as usize;
        let packed = &bytemuck::cast_slice(cache)[slot as usize * row_bytes + format.row_bytes(at)..];
        PackedRows { format, packed, row_bytes, columns: self.head_dim as usize, count }
    }
}

fn unpacked(row: PackedRows) -> Vec<f32> {
    let mut numbers = vec![0.0; row.columns];
    row.format.unpack(row.packed, &mut numbers);
    numbers
}
