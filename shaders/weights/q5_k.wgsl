// interface `weights`: Q5_K, blocks of 256 values: d, dmin f16, 12 bytes of scales, 32 bytes of fifth bits, 128
// bytes of nibbles.
#import bytes
#import k_scales
fn weights8(row: u32, i: u32) -> Eight {
    let block = row * ROW_BYTES + i / 32u * 176u;
    let v = i % 32u * 8u; // the first value's place in the block
    let by = scale_and_offset(block + 4u, v / 32u) * vec2(half(block), half(block + 2u));
    let q = block + 48u + v / 64u * 32u + v % 32u;
    let shift = v % 64u / 32u * 4u;
    let fifth = block + 16u + v % 32u;
    let low = bits4(bytes4(q), shift, 15u) + 16.0 * bits4(bytes4(fifth), v / 32u, 1u);
    let high = bits4(bytes4(q + 4u), shift, 15u) + 16.0 * bits4(bytes4(fifth + 4u), v / 32u, 1u);
    return Eight(by.x * low - by.y, by.x * high - by.y);
}
