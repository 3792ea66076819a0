// Implements interface `bits`: eight bits a value. A lane has two words for each group of eight, those of the
// first two groups in one plane and those of the last two in another. In each half of a word, a byte belongs
// to the first of two pairs and the other to the second.
struct Bits { first: vec4<u32>, last: vec4<u32> }
const EVEN_ONE = 256.0;
const ODD_ONE = 256.0;
fn bits_of(row: u32, lane: u32) -> Bits {
    let at = row / 4u + lane;
    return Bits(matrix[at], matrix[at + LANES]);
}
fn quants8(bits: Bits, j: u32) -> Eight {
    let words = select(bits.first, bits.last, j >= 2u);
    let two = select(words.xy, words.zw, j % 2u == 1u);
    return numbers((vec4(two << vec2(2u), two >> vec2(6u)).xzyw & vec4(0x03fc03fcu)) | ones());
}
