// Implements interface `bits`: six bits a value. A lane has the low four as bits/four.wgsl does, and the
// upper two as bits/two.wgsl does.
struct Bits { low: vec4<u32>, high: vec2<u32> }
const EVEN_ONE = 1024.0;
const ODD_ONE = 64.0;
fn bits_of(row: u32, lane: u32) -> Bits {
    let at = row + 4u * LANES + lane;
    return Bits(matrix[row / 4u + lane], vec2(word(at), word(at + LANES)));
}
fn quants8(bits: Bits, j: u32) -> Eight {
    let q = of4(bits.low, j);
    let high = of2(bits.high, j / 2u);
    let second = j % 2u * 2u;
    let upper = fields(high << (4u - second), high >> (4u + second), 0x30u);
    return numbers(fields(q, q >> 8u, 0x0fu) | ones() | upper);
}
