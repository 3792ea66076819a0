// Implements interface `bits`: six bits a value. A lane has the low four as bits/four.wgsl does, and the
// upper two as bits/two.wgsl does.
struct Bits { low: vec4<u32>, high: vec2<u32> }
const LOW_ONE = 1024.0;
const HIGH_ONE = 64.0;
fn bits_of(row: u32, lane: u32) -> Bits {
    let at = row + 4u * LANES + lane;
    return Bits(matrix[row / 4u + lane], vec2(word(at), word(at + LANES)));
}
fn quants8(bits: Bits, j: u32) -> Eight {
    let q = bytes_at(13u, of4(bits.low, j));
    let high = bytes_at(17u, of2(bits.high, j / 2u) >> (j % 2u * 2u));
    return Eight(
        floats((q & vec4(0x1e000u)) | (high & vec4(0x60000u)), 0x7e000u, LOW_ONE),
        floats((q & vec4(0x1e0000u)) | (high & vec4(0x600000u)), 0x7e0000u, HIGH_ONE),
    );
}
