// Implements interface `bits`: two bits a value. A lane has a word for each two groups of eight: in each
// nibble, two bits of the first and then two of the second.
alias Bits = vec2<u32>;
const EVEN_ONE = 64.0;
const ODD_ONE = 4.0;
fn bits_of(row: u32, lane: u32) -> Bits { return vec2(word(row + lane), word(row + LANES + lane)); }
fn quants8(bits: Bits, j: u32) -> Eight {
    let q = of2(bits, j / 2u);
    let second = j % 2u * 2u;
    return numbers(fields(q << (4u - second), q >> (4u + second), 0x30u) | ones());
}
