// Shared by Q4_K and Q5_K: reads rows as pairs of words, since a block of either format is a whole number of
// pairs. A block starts with the f16 numbers d and dmin, then 12 bytes with a scale and an offset, six bits
// each, for each of its eight parts of 32 values.
struct Eight { low: vec4<f32>, high: vec4<f32> }
override ROW_BYTES: u32; // bytes from one row to the next
@group(1) @binding(0) var<storage, read> matrix: array<vec2<u32>>;
// The scale (x) and offset (y) of a part of the block that starts at pair `block`.
fn scale_and_offset(block: u32, part: u32) -> vec4<f32> {
    let first = matrix[block];
    let second = matrix[block + 1u];
    let shift = vec2(part % 4u * 8u);
    let both = vec2(first.y, second.x) >> shift;
    var six = both & vec2(63u);
    if part >= 4u {
        six = ((vec2(second.y, second.y >> 4u) >> shift) & vec2(15u))
            | (((both >> vec2(6u)) & vec2(3u)) << vec2(4u));
    }
    let by = vec2<f32>(six) * unpack2x16float(first.x);
    return vec4(by.x, -by.y, 0.0, 0.0);
}
fn bits4(word: u32) -> vec4<f32> { return vec4<f32>(unpack4xU8(word)); }
