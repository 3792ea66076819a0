//! How the KV cache stores numbers: on the CPU as in shaders/kv.

use half::f16;
use std::str::FromStr;

/// How the numbers of a cache are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvFormat {
    #[default]
    F32,
    /// Two to a word. Numbers beyond the largest f16 are stored as that.
    F16,
}

/// An import of a program: the interface, and the source that implements it.
type Import = (&'static str, &'static str);

impl FromStr for KvFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            format!("is not a format of the cache: {} are", Self::ALL.map(Self::name).join(", "))
        })
    }
}

impl KvFormat {
    pub const ALL: [Self; 2] = [Self::F32, Self::F16];

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// This format for heads of a dimension that it can store, else f32.
    pub fn of_heads(self, head_dim: u32) -> Self {
        if head_dim.is_multiple_of(4) { self } else { Self::F32 }
    }

    /// Words of four bytes that a slot takes for keys, and for values, of `width` numbers each.
    pub fn slot_words(self, width: u32) -> u32 {
        match self {
            Self::F32 => 2 * width,
            Self::F16 => width,
        }
    }

    /// Stores numbers as words, from the number with the index `at` on.
    pub fn pack(self, numbers: &[f32], words: &mut [f32], at: usize) {
        match self {
            Self::F32 => words[at..][..numbers.len()].copy_from_slice(numbers),
            Self::F16 => {
                let largest = f16::MAX.to_f32();
                let stored = &mut bytemuck::cast_slice_mut::<f32, f16>(words)[at..][..numbers.len()];
                for (stored, number) in stored.iter_mut().zip(numbers) {
                    *stored = f16::from_f32(number.clamp(-largest, largest));
                }
            }
        }
    }

    /// All numbers that words store.
    pub fn unpack(self, words: &[f32]) -> Vec<f32> {
        match self {
            Self::F32 => words.to_vec(),
            Self::F16 => bytemuck::cast_slice::<f32, f16>(words).iter().map(|n| n.to_f32()).collect(),
        }
    }

    /// The largest error of a stored number, relative to the number.
    pub fn error(self) -> f64 {
        match self {
            Self::F32 => 0.0,
            Self::F16 => 2f64.powi(-11),
        }
    }

    /// The imports by which a program reads the cache of heads of this dimension.
    pub fn read(self, head_dim: u32) -> [Import; 2] {
        let read = match self {
            Self::F32 if head_dim.is_multiple_of(4) => include_str!("../shaders/kv/f32_fours.wgsl"),
            Self::F32 => include_str!("../shaders/kv/f32_ones.wgsl"),
            Self::F16 => include_str!("../shaders/kv/f16_fours.wgsl"),
        };
        [LAYOUT, ("kv_read", read)]
    }

    /// The imports by which a program writes it.
    pub fn write(self) -> [Import; 2] {
        let write = match self {
            Self::F32 => include_str!("../shaders/kv/f32_write.wgsl"),
            Self::F16 => include_str!("../shaders/kv/f16_write.wgsl"),
        };
        [LAYOUT, ("kv_write", write)]
    }
}

const LAYOUT: Import = ("kv", include_str!("../shaders/kv/layout.wgsl"));
