// Implements interface `weights` for f16: two values per word. Needs no device extension.
struct Eight { low: vec4<f32>, high: vec4<f32> }
@group(1) @binding(0) var<storage, read> matrix: array<vec4<u32>>;
fn shared32(row: u32, i: u32) -> vec4<f32> { return vec4(0.0); }
fn weights8(row: u32, i: u32, s: vec4<f32>) -> Eight {
    let w = matrix[row * COLUMNS8 + i];
    return Eight(
        vec4(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
}
