// interface `weights`: Q5_0, blocks of 32 values: d f16, 32 fifth bits, 16 bytes of low and high nibbles.
#import bytes
fn weights8(row: u32, i: u32) -> Eight {
    let block = row * ROW_BYTES + i / 4u * 22u;
    let d = half(block);
    let fifth = bytes4(block + 2u) >> (i % 4u * 8u);
    let q = block + 6u + i % 2u * 8u;
    let shift = i % 4u / 2u * 4u;
    let low = bits4(bytes4(q), shift, 15u) + bits4(spread(fifth) << 4u, 0u, 16u);
    let high = bits4(bytes4(q + 4u), shift, 15u) + bits4(spread(fifth >> 4u) << 4u, 0u, 16u);
    return Eight(d * (low - 16.0), d * (high - 16.0));
}
