// interface `weights`: Q4_1, blocks of 32 values: d, m f16, 16 bytes of low and high nibbles.
#import bytes
fn weights8(row: u32, i: u32) -> Eight {
    let block = row * ROW_BYTES + i / 4u * 20u;
    let d = half(block);
    let m = half(block + 2u);
    let q = block + 4u + i % 2u * 8u;
    let shift = i % 4u / 2u * 4u;
    return Eight(d * bits4(bytes4(q), shift, 15u) + m, d * bits4(bytes4(q + 4u), shift, 15u) + m);
}
