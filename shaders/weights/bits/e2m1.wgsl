// Implements interface `bits`: four bits a value, a floating-point number with a sign, two bits of exponent
// and one of fraction (OCP Microscaling Formats, "FP4 E2M1"). With the exponent's bits as the lowest of an
// f16's it is that number times 2^-14, subnormal ones included. A lane has a word for each group of eight. In
// each half pair 0 is as in the f16, and pair 1 is the same three bits lower; bits 3 to 5 and 14 are pair 2,
// bits 0 to 2 and 13 pair 3.
alias Bits = vec4<u32>;
const EVEN_ONE = 0.0;
const ODD_ONE = 0.0;
fn bits_of(row: u32, lane: u32) -> Bits { return matrix[row / 4u + lane]; }
fn quants8(bits: Bits, j: u32) -> Eight {
    let q = of4(bits, j);
    let first = vec2(q, q << 3u) & vec2(0x8e008e00u);
    let last = (vec2(q << 6u, q << 9u) & vec2(0x0e000e00u)) | (vec2(q << 1u, q << 2u) & vec2(0x80008000u));
    return numbers(vec4(first, last));
}
