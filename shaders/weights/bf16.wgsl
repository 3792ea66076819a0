// Implements interface `weights` for bfloat16: two values per word, each the upper half of an f32.
struct Eight { low: vec4<f32>, high: vec4<f32> }
@group(1) @binding(0) var<storage, read> matrix: array<vec4<u32>>;
fn pair(word: u32) -> vec2<f32> { return bitcast<vec2<f32>>(vec2(word << 16u, word & 0xffff0000u)); }
fn shared32(row: u32, i: u32) -> vec4<f32> { return vec4(0.0); }
fn weights8(row: u32, i: u32, s: vec4<f32>) -> Eight {
    let w = matrix[row * COLUMNS8 + i];
    return Eight(vec4(pair(w.x), pair(w.y)), vec4(pair(w.z), pair(w.w)));
}
