// Implements interface `bits`: five bits a value. A lane has the low four as bits/four.wgsl does, and a word
// with the fifth: of byte k, bit j belongs to value k of group j, and bit 4 + j to value 4 + k.
struct Bits { low: vec4<u32>, fifth: u32 }
const LOW_ONE = 512.0;
const HIGH_ONE = 32.0;
fn bits_of(row: u32, lane: u32) -> Bits {
    return Bits(matrix[row / 4u + lane], word(row + 4u * LANES + lane));
}
fn quants8(bits: Bits, j: u32) -> Eight {
    let q = bytes_at(14u, of4(bits.low, j));
    let fifth = bytes_at(18u, bits.fifth >> j);
    return Eight(
        floats((q & vec4(0x3c000u)) | (fifth & vec4(0x40000u)), 0x7c000u, LOW_ONE),
        floats((q & vec4(0x3c0000u)) | (fifth & vec4(0x400000u)), 0x7c0000u, HIGH_ONE),
    );
}
