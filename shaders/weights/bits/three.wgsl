// Implements interface `bits`: three bits a value. A lane has the low two as bits/two.wgsl does, and a word
// with the third: in each nibble, a bit of each group.
struct Bits { low: vec2<u32>, third: u32 }
const EVEN_ONE = 128.0;
const ODD_ONE = 8.0;
fn bits_of(row: u32, lane: u32) -> Bits {
    let at = row + lane;
    return Bits(vec2(word(at), word(at + LANES)), word(at + 2u * LANES));
}
fn quants8(bits: Bits, j: u32) -> Eight {
    let q = of2(bits.low, j / 2u);
    let second = j % 2u * 2u;
    let low = fields(q << (3u - second), q >> (5u + second), 0x18u);
    let third = fields(bits.third << (5u - j), bits.third >> (3u + j), 0x20u);
    return numbers(low | ones() | third);
}
