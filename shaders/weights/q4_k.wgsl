// interface `weights`: Q4_K, blocks of 256 values: d, dmin f16, 12 bytes of scales, 128 bytes of nibbles.
#import bytes
#import k_scales
fn weights8(row: u32, i: u32) -> Eight {
    let block = row * ROW_BYTES + i / 32u * 144u;
    let v = i % 32u * 8u; // the first value's place in the block
    let by = scale_and_offset(block + 4u, v / 32u) * vec2(half(block), half(block + 2u));
    let q = block + 16u + v / 64u * 32u + v % 32u;
    let shift = v % 64u / 32u * 4u;
    return Eight(by.x * bits4(bytes4(q), shift, 15u) - by.y, by.x * bits4(bytes4(q + 4u), shift, 15u) - by.y);
}
