// Implements interface `queries` for head dimensions that are a multiple of four.
@group(1) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
// The i-th vec4 of a query head that starts at value `at`.
fn query4(at: u32, i: u32) -> vec4<f32> { return qkv[at / 4u + i]; }
