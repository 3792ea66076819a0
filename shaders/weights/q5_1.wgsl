// interface `weights`: Q5_1, blocks of 32 values: d, m f16, 32 fifth bits, 16 bytes of low and high nibbles.
#import bytes
fn weights8(row: u32, i: u32) -> Eight {
    let block = row * ROW_BYTES + i / 4u * 24u;
    let d = half(block);
    let m = half(block + 2u);
    let fifth = bytes4(block + 4u) >> (i % 4u * 8u);
    let q = block + 8u + i % 2u * 8u;
    let shift = i % 4u / 2u * 4u;
    let low = bits4(bytes4(q), shift, 15u) + bits4(spread(fifth) << 4u, 0u, 16u);
    let high = bits4(bytes4(q + 4u), shift, 15u) + bits4(spread(fifth >> 4u) << 4u, 0u, 16u);
    return Eight(d * low + m, d * high + m);
}
