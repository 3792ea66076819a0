// interface `values`: a head's queries, keys and values, four at a time, heads of any width: zeros follow the last.
@group(1) @binding(0) var<storage, read> qkv: array<f32>;
@group(1) @binding(1) var<storage, read> cache: array<f32>;
// The i-th four of a head that starts at `at`.
fn query4(at: u32, i: u32) -> vec4<f32> {
    var v = vec4(0.0);
    for (var j = 0u; j < 4u; j++) { if 4u * i + j < HEAD_DIM { v[j] = qkv[at + 4u * i + j]; } }
    return v;
}
fn cache4(at: u32, i: u32) -> vec4<f32> {
    var v = vec4(0.0);
    for (var j = 0u; j < 4u; j++) { if 4u * i + j < HEAD_DIM { v[j] = cache[at + 4u * i + j]; } }
    return v;
}
