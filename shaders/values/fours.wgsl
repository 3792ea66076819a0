// interface `values`: a head's queries, keys and values, four at a time, where a head is a multiple of four wide.
@group(1) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
@group(1) @binding(1) var<storage, read> cache: array<vec4<f32>>;
// The i-th four of a head that starts at `at`.
fn query4(at: u32, i: u32) -> vec4<f32> { return qkv[at / 4u + i]; }
fn cache4(at: u32, i: u32) -> vec4<f32> { return cache[at / 4u + i]; }
