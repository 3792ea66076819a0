// Implements interface `weights` for Q2_K: blocks of 256 values in 84 bytes: 16 bytes, each a 4-bit scale and
// a 4-bit offset for 16 values; 64 bytes with 2 bits per value; then d and dmin, f16.
#import bytes
// Scale and offset of the first 16 of 32 values (xy), and of the last 16 (zw).
fn shared32(row: u32, i: u32) -> vec4<f32> {
    let block = row * ROW_BYTES + i / 8u * 84u;
    let both = bytes2(block + i % 8u * 2u);
    let d = unpack2x16float(matrix[(block + 80u) / 4u]);
    let scale = d.x * vec2<f32>(both & vec2(15u));
    let offset = -d.y * vec2<f32>(both >> vec2(4u));
    return vec4(scale.x, offset.x, scale.y, offset.y);
}
fn weights8(row: u32, i: u32, s: vec4<f32>) -> Eight {
    let v = i % 32u * 8u; // index of the first of the eight values in the block
    let q = words2(row * ROW_BYTES + i / 32u * 84u + 16u + v / 128u * 32u + v % 32u);
    let by = select(s.xy, s.zw, v % 32u >= 16u);
    return eight(q, v % 128u / 32u * 2u, 3u, by.x, by.y);
}
