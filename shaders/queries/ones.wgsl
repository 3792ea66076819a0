// Implements interface `queries` for any head dimension: components past the end of a head are zero.
@group(1) @binding(0) var<storage, read> qkv: array<f32>;
// The i-th value of a query head that starts at `at`. query4 calls it once per component: with a loop over
// the components, FXC takes minutes to compile.
fn query1(at: u32, i: u32) -> f32 { if i < HEAD_DIM { return qkv[at + i]; } return 0.0; }
// The i-th vec4.
fn query4(at: u32, i: u32) -> vec4<f32> {
    return vec4(
        query1(at, 4u * i),
        query1(at, 4u * i + 1u),
        query1(at, 4u * i + 2u),
        query1(at, 4u * i + 3u),
    );
}
