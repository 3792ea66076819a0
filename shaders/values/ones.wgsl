// interface `values`: a head's queries, keys and values, four at a time, heads of any width: zeros follow the last.
@group(1) @binding(0) var<storage, read> qkv: array<f32>;
@group(1) @binding(1) var<storage, read> cache: array<f32>;
// A value of a head that starts at `at`, each by itself: components that a loop counts take FXC minutes.
fn query1(at: u32, i: u32) -> f32 { if i < HEAD_DIM { return qkv[at + i]; } return 0.0; }
fn cache1(at: u32, i: u32) -> f32 { if i < HEAD_DIM { return cache[at + i]; } return 0.0; }
// The i-th four of it.
fn query4(at: u32, i: u32) -> vec4<f32> {
    return vec4(query1(at, 4u * i), query1(at, 4u * i + 1u), query1(at, 4u * i + 2u), query1(at, 4u * i + 3u));
}
fn cache4(at: u32, i: u32) -> vec4<f32> {
    return vec4(cache1(at, 4u * i), cache1(at, 4u * i + 1u), cache1(at, 4u * i + 2u), cache1(at, 4u * i + 3u));
}
