// Implements interface `weights` for Q8_0: blocks of 32 values in 34 bytes: an f16 scale d, then 32 i8. A
// value is d q.
#import bytes
fn shared32(row: u32, i: u32) -> vec4<f32> { return vec4(half(row * ROW_BYTES + i * 34u)); }
fn weights8(row: u32, i: u32, d: vec4<f32>) -> Eight {
    let q = bytes8(row * ROW_BYTES + i / 4u * 34u + 2u + i % 4u * 8u);
    return Eight(d * vec4<f32>(unpack4xI8(q.x)), d * vec4<f32>(unpack4xI8(q.y)));
}
