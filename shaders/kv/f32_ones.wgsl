// Implements interface `kv_read` for f32 and any head dimension: components past the end of a head are zero.
#import kv
@group(1) @binding(1) var<storage, read> cache: array<f32>;
// The i-th number of a key or a value that stands at `at`. kv4 calls it once per component: with a loop over
// the components, FXC takes minutes to compile.
fn kv1(at: u32, i: u32) -> f32 { if i < HEAD_DIM { return cache[at + i]; } return 0.0; }
// The i-th vec4.
fn kv4(at: u32, i: u32) -> vec4<f32> {
    return vec4(kv1(at, 4u * i), kv1(at, 4u * i + 1u), kv1(at, 4u * i + 2u), kv1(at, 4u * i + 3u));
}
