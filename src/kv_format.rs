//! How the KV cache stores numbers: on the CPU as in shaders/kv.

use half::f16;
use std::str::FromStr;

/// How the numbers of a cache are stored. The quantised forms are in blocks of 32 numbers of a head, each
/// with a scale; before they are stored, keys and values are turned by [`crate::kernels::hadamard`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvFormat {
    #[default]
    F32,
    /// Two to a word. Numbers beyond the largest f16 are stored as that.
    F16,
    /// Four to a word: signed bytes, of which 127 stands for the largest of a block.
    Q8_0,
    /// Eight to a word: 0 to 15, of which 0 stands for the largest of a block, and 8 for zero. A byte holds
    /// one of the first half of its block, and in the upper bits the one 16 after it.
    Q4_0,
}

/// Numbers in a block of the quantised forms.
const BLOCK: usize = 32;

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
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Q8_0, Self::Q4_0];

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }

    /// This format, or the next larger one that can store heads of this dimension.
    pub fn of_heads(self, head_dim: u32) -> Self {
        match self {
            Self::Q8_0 | Self::Q4_0 if head_dim.is_multiple_of(BLOCK as u32) => self,
            Self::F32 => self,
            _ if head_dim.is_multiple_of(4) => Self::F16,
            _ => Self::F32,
        }
    }

    /// Whether numbers are stored in blocks with scales.
    pub fn is_quantised(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0)
    }

    /// How many numbers are written at once, by one thread: [`KvFormat::write`]'s UNIT.
    pub fn unit(self) -> u32 {
        match self {
            Self::F32 => 1,
            Self::F16 => 2,
            Self::Q8_0 | Self::Q4_0 => BLOCK as u32,
        }
    }

    /// Numbers in a word, scales apart.
    fn in_a_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::F16 => 2,
            Self::Q8_0 => 4,
            Self::Q4_0 => 8,
        }
    }

    /// Words of four bytes that a slot takes for keys, and for values, of `width` numbers each: the keys and
    /// their blocks' scales, then the values and theirs.
    pub fn slot_words(self, width: u32) -> u32 {
        let scales = if self.is_quantised() { width / BLOCK as u32 } else { 0 };
        2 * (width / self.in_a_word() as u32 + scales)
    }

    /// Stores all keys, or all values, of a slot as words.
    pub fn pack(self, numbers: &[f32], words: &mut [f32]) {
        let (quants, scales) = words.split_at_mut(numbers.len() / self.in_a_word());
        match self {
            Self::F32 => quants.copy_from_slice(numbers),
            Self::F16 => {
                let largest = f16::MAX.to_f32();
                for (stored, number) in bytemuck::cast_slice_mut::<f32, f16>(quants).iter_mut().zip(numbers) {
                    *stored = f16::from_f32(number.clamp(-largest, largest));
                }
            }
            Self::Q8_0 => {
                let quants = bytemuck::cast_slice_mut::<f32, i8>(quants).chunks_mut(BLOCK);
                for ((block, quants), scale) in numbers.chunks(BLOCK).zip(quants).zip(scales) {
                    *scale = largest(block).abs() / 127.0;
                    let by = inverse(*scale);
                    for (quant, number) in quants.iter_mut().zip(block) {
                        *quant = (number * by + 0.5).floor() as i8;
                    }
                }
            }
            Self::Q4_0 => {
                let quants = bytemuck::cast_slice_mut::<f32, u8>(quants).chunks_mut(BLOCK / 2);
                for ((block, quants), scale) in numbers.chunks(BLOCK).zip(quants).zip(scales) {
                    *scale = largest(block) / -8.0;
                    let by = inverse(*scale);
                    let quant = |number: f32| ((number * by + 8.5).floor() as u8).min(15);
                    let (low, high) = block.split_at(BLOCK / 2);
                    for (two, (low, high)) in quants.iter_mut().zip(low.iter().zip(high)) {
                        *two = quant(*low) | quant(*high) << 4;
                    }
                }
            }
        }
    }

    /// The numbers from `at` on, as many as there is room for, of a slot's keys or values, which are `width`
    /// numbers stored as `words`.
    #[inline(always)]
    pub fn unpack(self, words: &[f32], width: usize, at: usize, numbers: &mut [f32]) {
        let (quants, scales) = words.split_at(width / self.in_a_word());
        match self {
            Self::F32 => numbers.copy_from_slice(&quants[at..][..numbers.len()]),
            Self::F16 => {
                let stored = &bytemuck::cast_slice::<f32, f16>(quants)[at..];
                numbers.iter_mut().zip(stored).for_each(|(number, stored)| *number = stored.to_f32());
            }
            Self::Q8_0 => {
                let quants = bytemuck::cast_slice::<f32, i8>(quants)[at..].chunks(BLOCK);
                for ((numbers, quants), scale) in
                    numbers.chunks_mut(BLOCK).zip(quants).zip(&scales[at / BLOCK..])
                {
                    for (number, quant) in numbers.iter_mut().zip(quants) {
                        *number = f32::from(*quant) * scale;
                    }
                }
            }
            Self::Q4_0 => {
                let quants = bytemuck::cast_slice::<f32, u8>(quants)[at / 2..].chunks(BLOCK / 2);
                for ((numbers, quants), scale) in
                    numbers.chunks_mut(BLOCK).zip(quants).zip(&scales[at / BLOCK..])
                {
                    let (low, high) = numbers.split_at_mut(BLOCK / 2);
                    for ((low, high), quants) in low.iter_mut().zip(high).zip(quants) {
                        *low = f32::from((quants & 15) as i8 - 8) * scale;
                        *high = f32::from((quants >> 4) as i8 - 8) * scale;
                    }
                }
            }
        }
    }

    /// All numbers of some slots, each of `words` words.
    pub fn unpack_slots(self, slots: &[f32], words: usize) -> Vec<f32> {
        let width = words / 2 * self.in_a_word() * BLOCK
            / if self.is_quantised() { BLOCK + self.in_a_word() } else { BLOCK };
        let unpacked = |half: &[f32]| {
            let mut numbers = vec![0.0; width];
            self.unpack(half, width, 0, &mut numbers);
            numbers
        };
        slots.chunks(words / 2).flat_map(unpacked).collect()
    }

    /// The largest error of a stored number, relative to the largest number of its block.
    pub fn error(self) -> f64 {
        match self {
            Self::F32 => 0.0,
            Self::F16 => 2f64.powi(-11),
            Self::Q8_0 => 0.5 / 127.0,
            Self::Q4_0 => 0.5 / 8.0,
        }
    }

    /// The imports by which a program reads the cache of heads of this dimension.
    pub fn read(self, head_dim: u32) -> [Import; 2] {
        let read = match self {
            Self::F32 if head_dim.is_multiple_of(4) => include_str!("../shaders/kv/f32_fours.wgsl"),
            Self::F32 => include_str!("../shaders/kv/f32_ones.wgsl"),
            Self::F16 => include_str!("../shaders/kv/f16_fours.wgsl"),
            Self::Q8_0 => include_str!("../shaders/kv/q8_0_fours.wgsl"),
            Self::Q4_0 => include_str!("../shaders/kv/q4_0_fours.wgsl"),
        };
        [LAYOUT, ("kv_read", read)]
    }

    /// The imports by which a program writes it.
    pub fn write(self) -> [Import; 2] {
        let write = match self {
            Self::F32 => include_str!("../shaders/kv/f32_write.wgsl"),
            Self::F16 => include_str!("../shaders/kv/f16_write.wgsl"),
            Self::Q8_0 => include_str!("../shaders/kv/q8_0_write.wgsl"),
            Self::Q4_0 => include_str!("../shaders/kv/q4_0_write.wgsl"),
        };
        [LAYOUT, ("kv_write", write)]
    }
}

const LAYOUT: Import = ("kv", include_str!("../shaders/kv/layout.wgsl"));

/// The number of a block that is farthest from zero.
fn largest(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |top: f32, number| if number.abs() > top.abs() { *number } else { top })
}

/// 1 / scale, or 0 where all of a block is zero.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}
