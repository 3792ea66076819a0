//! The layout of block formats on GPUs.
//!
//! A block of a file mixes scales and quants of different widths, so its parts are aligned to nothing, and
//! neighbouring threads read far apart. For a GPU the rows of a matrix are laid out in planes while they are
//! uploaded: all quants of a row, then all its scales, so that neighbouring lanes read neighbouring words and
//! nothing is decoded twice.
//!
//! A *lane* is what one thread takes of a row at a time: 32 columns, namely of each of four blocks of 32
//! columns the same group of eight. Four lanes make a *unit* of 128 columns, to which rows are padded with
//! zeros. So neighbouring lanes meet neighbouring activations, eight at a time, and each group of eight has
//! one scale. What `bits` and `scales` hold is said in the files of the same names in shaders/weights/.

use super::{Format, unpack};

/// Columns of a unit.
pub const UNIT: usize = 128;
/// Columns of a block of the formats with one level of scales, and of a part of the others.
const BLOCK: usize = 32;

/// How the quants of a format are laid out: a lane's words in each plane.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bits {
    Two,
    Three,
    Four,
    /// Four, of floating point.
    E2M1,
    Five,
    Six,
    Eight,
}

/// How the scales of a format are laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scales {
    /// d for 32 values.
    Half,
    /// d and an offset for 32 values.
    Pair,
    /// d and dmin for 256 values; a byte for 32 values multiplies d, another dmin.
    BytePair,
    /// d for 256 values; a signed byte for 16 values multiplies it.
    SignedByte,
    /// d and dmin for 256 values; a nibble for 16 values multiplies d, another dmin.
    NibblePair,
    /// A power of two for 32 values.
    Exponent,
}

/// What number a quant is, before it is scaled.
#[derive(Clone, Copy)]
enum Number {
    /// The quant less this.
    Less(u8),
    /// The entry of a table.
    Table(&'static [i8; 16]),
    /// Four bits of floating point; here twice that number.
    E2M1,
}

/// How a block format is laid out, and what its quants are.
struct Layout {
    bits: Bits,
    scales: Scales,
    number: Number,
}

const fn layout(format: Format) -> Layout {
    let (bits, scales, number) = match format {
        Format::F32 | Format::F16 | Format::BF16 => panic!("not a block format"),
        Format::Q8_0 => (Bits::Eight, Scales::Half, Number::Less(128)),
        Format::Q4_0 => (Bits::Four, Scales::Half, Number::Less(8)),
        Format::Q4_1 => (Bits::Four, Scales::Pair, Number::Less(0)),
        Format::Q5_0 => (Bits::Five, Scales::Half, Number::Less(16)),
        Format::Q5_1 => (Bits::Five, Scales::Pair, Number::Less(0)),
        Format::Q2_K => (Bits::Two, Scales::NibblePair, Number::Less(0)),
        Format::Q3_K => (Bits::Three, Scales::SignedByte, Number::Less(4)),
        Format::Q4_K => (Bits::Four, Scales::BytePair, Number::Less(0)),
        Format::Q5_K => (Bits::Five, Scales::BytePair, Number::Less(0)),
        Format::Q6_K => (Bits::Six, Scales::SignedByte, Number::Less(32)),
        Format::IQ4_NL => (Bits::Four, Scales::Half, Number::Table(&unpack::IQ4_NL)),
        Format::MXFP4 => (Bits::E2M1, Scales::Exponent, Number::E2M1),
    };
    Layout { bits, scales, number }
}

impl Bits {
    /// Bytes of a unit's quants.
    fn unit_bytes(self) -> usize {
        let bits = match self {
            Self::Two => 2,
            Self::Three => 3,
            Self::Four | Self::E2M1 => 4,
            Self::Five => 5,
            Self::Six => 6,
            Self::Eight => 8,
        };
        UNIT * bits / 8
    }
}

impl Scales {
    /// Bytes of a unit's scales without d and dmin of 256 values.
    fn unit_bytes(self) -> usize {
        match self {
            Self::Half | Self::BytePair | Self::SignedByte | Self::NibblePair => 8,
            Self::Pair => 16,
            Self::Exponent => 4,
        }
    }
    /// Bytes of d and dmin of 256 values.
    fn super_bytes(self) -> usize {
        match self {
            Self::Half | Self::Pair | Self::Exponent => 0,
            Self::SignedByte => 2,
            Self::BytePair | Self::NibblePair => 4,
        }
    }
}

/// Bytes of a row of `columns` values: a multiple of 16.
pub fn row_bytes(format: Format, columns: usize) -> usize {
    let (Layout { bits, scales, .. }, units) = (layout(format), columns.div_ceil(UNIT));
    let bytes = units * (bits.unit_bytes() + scales.unit_bytes()) + units.div_ceil(2) * scales.super_bytes();
    bytes.next_multiple_of(16)
}

/// What a program needs to read such rows: imports, (interface, source) of files in shaders/weights/.
pub fn imports(format: Format) -> Vec<(&'static str, &'static str)> {
    let Layout { bits, scales, number } = layout(format);
    let bits = match (bits, number) {
        (_, Number::Table(_)) => include_str!("../../shaders/weights/bits/table.wgsl"),
        (Bits::E2M1, _) => include_str!("../../shaders/weights/bits/e2m1.wgsl"),
        (Bits::Two, _) => include_str!("../../shaders/weights/bits/two.wgsl"),
        (Bits::Three, _) => include_str!("../../shaders/weights/bits/three.wgsl"),
        (Bits::Four, _) => include_str!("../../shaders/weights/bits/four.wgsl"),
        (Bits::Five, _) => include_str!("../../shaders/weights/bits/five.wgsl"),
        (Bits::Six, _) => include_str!("../../shaders/weights/bits/six.wgsl"),
        (Bits::Eight, _) => include_str!("../../shaders/weights/bits/eight.wgsl"),
    };
    let scales = match scales {
        Scales::Half => include_str!("../../shaders/weights/scales/half.wgsl"),
        Scales::Pair => include_str!("../../shaders/weights/scales/pair.wgsl"),
        Scales::BytePair => include_str!("../../shaders/weights/scales/byte_pair.wgsl"),
        Scales::SignedByte => include_str!("../../shaders/weights/scales/signed_byte.wgsl"),
        Scales::NibblePair => include_str!("../../shaders/weights/scales/nibble_pair.wgsl"),
        Scales::Exponent => include_str!("../../shaders/weights/scales/exponent.wgsl"),
    };
    let planes = include_str!("../../shaders/weights/planes.wgsl");
    vec![("weights", planes), ("bits", bits), ("scales", scales)]
}

/// The constants that these imports need.
pub fn constants(format: Format, columns: usize) -> Vec<(&'static str, f64)> {
    let (Layout { bits, number, .. }, units) = (layout(format), columns.div_ceil(UNIT));
    let mut constants = vec![
        ("LANES", (4 * units) as f64),
        ("ROW_WORDS", (row_bytes(format, columns) / 4) as f64),
        ("SCALES_AT", (units * bits.unit_bytes() / 4) as f64),
        ("ZERO", if let Number::Less(zero) = number { zero.into() } else { 0.0 }),
    ];
    if let Number::Table(table) = number {
        let word = |i: usize| f64::from(u32::from_le_bytes([0, 1, 2, 3].map(|k| table[4 * i + k] as u8)));
        constants.extend([
            ("TABLE0", word(0)),
            ("TABLE1", word(1)),
            ("TABLE2", word(2)),
            ("TABLE3", word(3)),
        ]);
    }
    constants
}

/// Lays out a row, from a file's blocks to `out`.
pub fn lay(format: Format, blocks: &[u8], columns: usize, out: &mut [u8]) {
    let (Layout { bits, scales, .. }, units) = (layout(format), columns.div_ceil(UNIT));
    out.fill(0);
    let (planes, rest) = out.split_at_mut(units * bits.unit_bytes());
    let (of_units, supers) = rest.split_at_mut(units * scales.unit_bytes());
    let n = format.block_values();
    // Padding is zeros with a scale of zero, whatever the quant that means zero is.
    let mut quants = vec![0; units.next_multiple_of(2) * UNIT];
    for (b, block) in blocks.chunks_exact(format.block_bytes()).enumerate() {
        read_quants(format, block, &mut quants[b * n..][..n]);
        lay_scales(scales, format, block, b, of_units, supers);
    }
    for (unit, quants) in quants.as_chunks::<UNIT>().0[..units].iter().enumerate() {
        for lane in 0..4 {
            // [group][value]
            let of_lane: [[u8; 8]; 4] = [0, 1, 2, 3]
                .map(|j| *quants[j * BLOCK + 8 * lane..].first_chunk().expect("a group of eight"));
            lay_quants(bits, &of_lane, 4 * unit + lane, 4 * units, planes);
        }
    }
}

/// Dequantises a row. Bit for bit what [`Format::unpack`] makes of its blocks.
pub fn unpack(format: Format, row: &[u8], columns: usize, values: &mut [f32]) {
    let (Layout { bits, scales, number }, units) = (layout(format), columns.div_ceil(UNIT));
    let (planes, rest) = row.split_at(units * bits.unit_bytes());
    let (of_units, supers) = rest.split_at(units * scales.unit_bytes());
    for (i, values) in values[..columns].chunks_mut(8).enumerate() {
        let (unit, j, lane) = (i / 16, i / 4 % 4, i % 4);
        let quants = read_group(bits, j, 4 * unit + lane, 4 * units, planes);
        let (scale, offset) = read_factors(scales, unit, j, lane, of_units, supers);
        for (value, quant) in values.iter_mut().zip(quants) {
            let q = match number {
                Number::Less(zero) => i16::from(quant) - i16::from(zero),
                Number::Table(table) => table[usize::from(quant)].into(),
                Number::E2M1 => unpack::MXFP4[usize::from(quant)].into(),
            };
            *value = scale * f32::from(q);
            if let Some(offset) = offset {
                *value += offset;
            }
        }
    }
}

/// The quants of 32 values in 16 bytes of nibbles: the low ones are values 0 to 15, the high ones 16 to 31.
fn nibbles(bytes: &[u8], out: &mut [u8]) {
    let (low, high) = out.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

/// Adds a fifth bit to each of 32 quants.
fn fifths(bytes: &[u8], out: &mut [u8]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out |= (bytes[i / 8] >> (i % 8) & 1) << 4;
    }
}

/// The quants of a block in the order of its values, as numbers from 0 on.
fn read_quants(format: Format, block: &[u8], out: &mut [u8]) {
    match format {
        Format::F32 | Format::F16 | Format::BF16 => panic!("not a block format"),
        Format::Q8_0 => out.iter_mut().zip(&block[2..]).for_each(|(out, q)| *out = q ^ 0x80),
        Format::Q4_0 | Format::IQ4_NL => nibbles(&block[2..], out),
        Format::Q4_1 => nibbles(&block[4..], out),
        Format::MXFP4 => nibbles(&block[1..], out),
        Format::Q5_0 => {
            nibbles(&block[6..], out);
            fifths(&block[2..6], out);
        }
        Format::Q5_1 => {
            nibbles(&block[8..], out);
            fifths(&block[4..8], out);
        }
        Format::Q2_K => {
            for (s, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let (bytes, shift) = (&block[16 + s / 4 * 32..], s % 4 * 2);
                out.iter_mut().zip(bytes).for_each(|(out, q)| *out = q >> shift & 3);
            }
        }
        Format::Q3_K => {
            for (s, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let (bytes, shift) = (&block[32 + s / 4 * 32..], s % 4 * 2);
                for (out, (q, high)) in out.iter_mut().zip(bytes.iter().zip(&block[..32])) {
                    *out = q >> shift & 3 | (high >> s & 1) << 2;
                }
            }
        }
        Format::Q4_K => {
            for (s, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let (bytes, shift) = (&block[16 + s / 2 * 32..], s % 2 * 4);
                out.iter_mut().zip(bytes).for_each(|(out, q)| *out = q >> shift & 15);
            }
        }
        Format::Q5_K => {
            for (s, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let (bytes, shift) = (&block[48 + s / 2 * 32..], s % 2 * 4);
                for (out, (q, high)) in out.iter_mut().zip(bytes.iter().zip(&block[16..48])) {
                    *out = q >> shift & 15 | (high >> s & 1) << 4;
                }
            }
        }
        Format::Q6_K => {
            for (s, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let (low, high) = (&block[s / 4 * 64 + s % 2 * 32..], &block[128 + s / 4 * 32..]);
                let (low_shift, high_shift) = (s % 4 / 2 * 4, s % 4 * 2);
                for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
                    *out = low >> low_shift & 15 | (high >> high_shift & 3) << 4;
                }
            }
        }
    }
}

/// Where value i of a group has its nibble in a word: a byte and a shift. The values come in pairs, of which
/// the first is in the lower half of the word and the second at the same place in the upper.
fn nibble(i: usize) -> (usize, usize) {
    (i % 2 * 2 + i / 4, i / 2 % 2 * 4)
}

/// Where, in half a word, pair p of E2M1 numbers has its exponent and fraction, and where its sign.
const E2M1_PAIRS: [(usize, usize); 4] = [(9, 15), (6, 12), (3, 14), (0, 13)];

/// Writes a lane's quants, `[group][value]`, to the planes of a row of `lanes` lanes.
fn lay_quants(bits: Bits, q: &[[u8; 8]; 4], lane: usize, lanes: usize, planes: &mut [u8]) {
    let word = |of: &dyn Fn(usize) -> u8, out: &mut [u8]| {
        for (byte, shift, value) in (0..8).map(|i| (nibble(i).0, nibble(i).1, of(i))) {
            out[byte] |= value << shift;
        }
    };
    // A nibble for each value: a word for each group.
    let low_four = |planes: &mut [u8]| {
        for j in 0..4 {
            word(&|i| q[j][i] & 15, &mut planes[16 * lane + 4 * j..]);
        }
    };
    // Two bits for each value, from bit `shift` on: a word for each two groups, in planes of their own.
    let twos = |shift: u8, planes: &mut [u8]| {
        for m in 0..2 {
            let two = |i: usize| q[2 * m][i] >> shift & 3 | (q[2 * m + 1][i] >> shift & 3) << 2;
            word(&two, &mut planes[4 * (m * lanes + lane)..]);
        }
    };
    // Bit `shift` of each value: one word.
    let ones = |shift: u8, planes: &mut [u8]| {
        let one = |i: usize| (0..4).fold(0, |bits, j| bits | (q[j][i] >> shift & 1) << j);
        word(&one, &mut planes[4 * lane..]);
    };
    match bits {
        Bits::Two => twos(0, planes),
        Bits::Three => {
            twos(0, planes);
            ones(2, &mut planes[8 * lanes..]);
        }
        Bits::Four => low_four(planes),
        Bits::E2M1 => {
            for (group, word) in q.iter().zip(planes[16 * lane..].as_chunks_mut::<4>().0) {
                for (half, out) in word.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    *out = (0..4)
                        .fold(0, |out, p| {
                            let (value, (rest, sign)) = (u16::from(group[2 * p + half]), E2M1_PAIRS[p]);
                            out | (value & 7) << rest | value >> 3 << sign
                        })
                        .to_le_bytes();
                }
            }
        }
        Bits::Five => {
            low_four(planes);
            ones(4, &mut planes[16 * lanes..]);
        }
        Bits::Six => {
            low_four(planes);
            twos(4, &mut planes[16 * lanes..]);
        }
        Bits::Eight => {
            for (j, group) in q.iter().enumerate() {
                let bytes = [0, 2, 1, 3, 4, 6, 5, 7].map(|i| group[i]);
                planes[16 * (j / 2 * lanes + lane) + j % 2 * 8..][..8].copy_from_slice(&bytes);
            }
        }
    }
}

/// The quants of the j-th group of eight of a lane: the inverse of [`lay_quants`].
fn read_group(bits: Bits, j: usize, lane: usize, lanes: usize, planes: &[u8]) -> [u8; 8] {
    let each = |word: &[u8], shift: usize, mask: u8| {
        [0, 1, 2, 3, 4, 5, 6, 7].map(|i| word[nibble(i).0] >> (nibble(i).1 + shift) & mask)
    };
    let low_four = || each(&planes[16 * lane + 4 * j..], 0, 15);
    let twos = |planes: &[u8]| each(&planes[4 * (j / 2 * lanes + lane)..], 2 * (j % 2), 3);
    let ones = |planes: &[u8]| each(&planes[4 * lane..], j, 1);
    let join = |low: [u8; 8], high: [u8; 8], shift: u8| {
        let mut all = low;
        all.iter_mut().zip(high).for_each(|(all, high)| *all |= high << shift);
        all
    };
    match bits {
        Bits::Two => twos(planes),
        Bits::Three => join(twos(planes), ones(&planes[8 * lanes..]), 2),
        Bits::Four => low_four(),
        Bits::E2M1 => [0, 1, 2, 3, 4, 5, 6, 7].map(|i| {
            let at = 16 * lane + 4 * j + i % 2 * 2;
            let (half, (rest, sign)) = (u16::from_le_bytes([planes[at], planes[at + 1]]), E2M1_PAIRS[i / 2]);
            (half >> rest & 7 | (half >> sign & 1) << 3) as u8
        }),
        Bits::Five => join(low_four(), ones(&planes[16 * lanes..]), 4),
        Bits::Six => join(low_four(), twos(&planes[16 * lanes..]), 4),
        Bits::Eight => {
            let group = &planes[16 * (j / 2 * lanes + lane) + j % 2 * 8..];
            [0, 2, 1, 3, 4, 6, 5, 7].map(|i| group[i])
        }
    }
}

/// Writes the scales of the b-th block of a row.
fn lay_scales(
    scales: Scales,
    format: Format,
    block: &[u8],
    b: usize,
    of_units: &mut [u8],
    supers: &mut [u8],
) {
    // The 16 scales of a block of 256, each for 16 values: a word for the first halves of each unit's blocks
    // of 32, and one for the second halves.
    let mut of_sixteens = |scale: &dyn Fn(usize) -> u8| {
        for s in 0..16 {
            of_units[16 * b + s / 8 * 8 + s % 2 * 4 + s % 8 / 2] = scale(s);
        }
    };
    match scales {
        Scales::Half => of_units[2 * b..][..2].copy_from_slice(&block[..2]),
        Scales::Pair => of_units[4 * b..][..4].copy_from_slice(&block[..4]),
        Scales::Exponent => of_units[b] = block[0],
        Scales::BytePair => {
            for s in 0..8 {
                let (scale, offset) = unpack::scale_and_offset(&block[4..16], s);
                let at = 16 * b + s / 4 * 8 + s % 4;
                (of_units[at], of_units[at + 4]) = (scale as u8, offset as u8);
            }
            supers[4 * b..][..4].copy_from_slice(&block[..4]);
        }
        Scales::NibblePair => {
            of_sixteens(&|s| block[s]);
            supers[4 * b..][..4].copy_from_slice(&block[80..84]);
        }
        Scales::SignedByte if format == Format::Q6_K => {
            of_sixteens(&|s| block[192 + s]);
            supers[2 * b..][..2].copy_from_slice(&block[208..210]);
        }
        Scales::SignedByte => {
            of_sixteens(&|s| unpack::q3_k_scale(&block[96..108], s) as u8);
            supers[2 * b..][..2].copy_from_slice(&block[108..110]);
        }
    }
}

/// The scale and, if the format has one, the offset of the j-th group of eight of a lane.
fn read_factors(
    scales: Scales,
    unit: usize,
    j: usize,
    lane: usize,
    of_units: &[u8],
    supers: &[u8],
) -> (f32, Option<f32>) {
    let half = unpack::half;
    let of_unit = &of_units[unit * scales.unit_bytes()..][..scales.unit_bytes()];
    let of_super = &supers[unit / 2 * scales.super_bytes()..];
    match scales {
        Scales::Half => (half(of_unit, 2 * j), None),
        Scales::Pair => (half(of_unit, 4 * j), Some(half(of_unit, 4 * j + 2))),
        Scales::Exponent => (unpack::e8m0_half(of_unit[j]), None),
        Scales::BytePair => {
            let (scale, offset) = (f32::from(of_unit[j]), f32::from(of_unit[4 + j]));
            (half(of_super, 0) * scale, Some(-(half(of_super, 2) * offset)))
        }
        Scales::SignedByte => {
            let scale = of_unit[lane / 2 * 4 + j] as i8;
            (half(of_super, 0) * f32::from(scale), None)
        }
        Scales::NibblePair => {
            let both = of_unit[lane / 2 * 4 + j];
            let (scale, offset) = (f32::from(both & 15), f32::from(both >> 4));
            (half(of_super, 0) * scale, Some(-(half(of_super, 2) * offset)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Tensor;

    #[test]
    fn planes_hold_what_blocks_hold() {
        for format in Format::ALL.into_iter().filter(|f| f.is_blocks()) {
            // Whole units, a half unit and, where blocks are of 32, a ragged one.
            for columns in [256, 1024, 768, 576, 32] {
                if columns % format.block_values() != 0 {
                    continue;
                }
                let tensor = Tensor::random("w", format, 3, columns, 7);
                let blocks = tensor.bytes();
                for blocks in blocks.chunks_exact(format.row_bytes(columns)) {
                    let mut row = vec![0xff; row_bytes(format, columns)];
                    lay(format, blocks, columns, &mut row);
                    let (mut expected, mut got) = (vec![0.0; columns], vec![0.0; columns]);
                    format.unpack(blocks, &mut expected);
                    unpack(format, &row, columns, &mut got);
                    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&got), bits(&expected), "{format:?}, {columns} columns");
                }
            }
        }
    }

    #[test]
    fn planes_are_hardly_larger_than_blocks() {
        for format in Format::ALL.into_iter().filter(|f| f.is_blocks()) {
            let (planes, blocks) = (row_bytes(format, 4096), format.row_bytes(4096));
            assert!(planes as f64 <= 1.05 * blocks as f64, "{format:?}: {planes} bytes for {blocks}");
        }
    }
}
