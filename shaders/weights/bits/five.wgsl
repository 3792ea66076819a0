// Implements interface `bits`: five bits a value. A lane has the low four as bits/four.wgsl does, and a word
// with the fifth: in each nibble, a bit of each group.
struct Bits { low: vec4<u32>, fifth: u32 }
const EVEN_ONE = 512.0;
const ODD_ONE = 32.0;
fn bits_of(row: u32, lane: u32) -> Bits {
    return Bits(matrix[row / 4u + lane], word(row + 4u * LANES + lane));
}
fn quants8(bits: Bits, j: u32) -> Eight {
    let q = of4(bits.low, j);
    let low = fields(q << 1u, q >> 7u, 0x1eu);
    let fifth = fields(bits.fifth << (5u - j), bits.fifth >> (3u + j), 0x20u);
    return numbers(low | ones() | fifth);
}
