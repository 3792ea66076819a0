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

    pub fn is_quantised(&self) -> bool {
        self.parts[0].format.is_quantised()
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

    /// The keys of a head in `count` slots from `slot` on. `cache` holds the words of the whole part.
    pub fn keys<'a>(&self, cache: &'a [f32], head: u32, slot: u32, count: usize) -> KvRows<'a> {
        self.rows(cache, 0, head, slot, count)
    }

    /// The values of a head, likewise.
    pub fn values<'a>(&self, cache: &'a [f32], head: u32, slot: u32, count: usize) -> KvRows<'a> {
        self.rows(cache, self.slot_words() as usize / 2, head, slot, count)
    }

    /// A head's key in a slot.
    pub fn key(&self, cache: &[f32], head: u32, slot: u32) -> Vec<f32> {
        self.keys(cache, head, slot, 1).numbers()
    }

    /// A head's value in a slot.
    pub fn value(&self, cache: &[f32], head: u32, slot: u32) -> Vec<f32> {
        self.values(cache, head, slot, 1).numbers()
    }

    /// Writes the keys and the values of all heads of the part into a slot.
    pub fn write(&self, cache: &mut [f32], slot: u32, keys: &[f32], values: &[f32]) {
        let words = self.slot_words() as usize;
        let (k, v) = cache[slot as usize * words..][..words].split_at_mut(words / 2);
        self.format.pack(keys, k);
        self.format.pack(values, v);
    }

    /// A head's numbers in consecutive slots, whose keys or values begin at word `half` of each.
    #[inline(always)]
    fn rows<'a>(&self, cache: &'a [f32], half: usize, head: u32, slot: u32, count: usize) -> KvRows<'a> {
        let (words, dim) = (self.slot_words() as usize, self.head_dim as usize);
        let at = (head - self.heads.start) as usize * dim;
        let slots = &cache[slot as usize * words..];
        let stored = |format: Format| {
            let packed = &bytemuck::cast_slice(slots)[4 * half + format.row_bytes(at)..];
            KvRows::Stored(PackedRows { format, packed, row_bytes: 4 * words, columns: dim, count })
        };
        match self.format {
            KvFormat::F32 => stored(Format::F32),
            KvFormat::F16 => stored(Format::F16),
            KvFormat::Q8_0 | KvFormat::Q4_0 => {
                let mut numbers = vec![0.0; count * dim];
                for (slot, numbers) in slots.chunks(words).zip(numbers.chunks_mut(dim)) {
                    self.format.unpack(&slot[half..][..words / 2], self.width() as usize, at, numbers);
                }
                KvRows::Unpacked { numbers, columns: dim }
            }
        }
    }
}

/// A head's keys, or its values, of consecutive slots.
pub enum KvRows<'a> {
    /// As they are in the cache.
    Stored(PackedRows<'a>),
    /// `[slots, columns]`
    Unpacked { numbers: Vec<f32>, columns: usize },
}

impl KvRows<'_> {
    /// As rows for products.
    pub fn packed(&self) -> PackedRows<'_> {
        match self {
            Self::Stored(rows) => *rows,
            Self::Unpacked { numbers, columns } => PackedRows {
                format: Format::F32,
                packed: bytemuck::cast_slice(numbers),
                row_bytes: 4 * columns,
                columns: *columns,
                count: numbers.len() / columns,
            },
        }
    }

    /// The numbers of the first slot.
    fn numbers(&self) -> Vec<f32> {
        let row = self.packed();
        let mut numbers = vec![0.0; row.columns];
        row.format.unpack(row.packed, &mut numbers);
        numbers
    }
}
