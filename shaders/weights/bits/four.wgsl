// Implements interface `bits`: four bits a value. A lane has a word for each group of eight.
alias Bits = vec4<u32>;
const EVEN_ONE = 256.0;
const ODD_ONE = 16.0;
fn bits_of(row: u32, lane: u32) -> Bits { return matrix[row / 4u + lane]; }
fn quants8(bits: Bits, j: u32) -> Eight {
    let q = of4(bits, j);
    return numbers(fields(q << 2u, q >> 6u, 0x3cu) | ones());
}
