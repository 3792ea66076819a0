// Implements interface `bits`: three bits a value. A lane has the low two as bits/two.wgsl does, and a word
// with the third: of byte k, bit j belongs to value k of group j, and bit 4 + j to value 4 + k.
struct Bits { low: vec2<u32>, third: u32 }
const LOW_ONE = 128.0;
const HIGH_ONE = 8.0;
fn bits_of(row: u32, lane: u32) -> Bits {
    let at = row + lane;
    return Bits(vec2(word(at), word(at + LANES)), word(at + 2u * LANES));
}
fn quants8(bits: Bits, j: u32) -> Eight {
    let q = bytes_at(16u, of2(bits.low, j / 2u) >> (j % 2u * 2u));
    let third = bytes_at(18u, bits.third >> j);
    return Eight(
        floats((q & vec4(0x30000u)) | (third & vec4(0x40000u)), 0x70000u, LOW_ONE),
        floats((q & vec4(0x300000u)) | (third & vec4(0x400000u)), 0x700000u, HIGH_ONE),
    );
}
