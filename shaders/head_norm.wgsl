// RMS-normalizes each query and key head of qkv in place, with the norm weights of q or of k:
// head = head / sqrt(mean(head^2) + EPSILON) * weight. One workgroup per row and head.
override WORKGROUP: u32 = 64u;
override HEAD_DIM: u32;
override HEADS: u32;   // query heads
override BOTH: u32;    // query and key heads together
override STRIDE: u32;  // values from one row of qkv to the next
override Q_AT: u32;    // where the weights of q start in the layer's vectors
override K_AT: u32;    // where those of k start
override EPSILON: f32;
#import step
#import reduce
@group(1) @binding(0) var<storage, read> vectors: array<f32>;
@group(1) @binding(1) var<storage, read_write> qkv: array<f32>;

fn kernel(group: vec3<u32>, groups: vec3<u32>, t: Thread) {
    let head = group_index(group, groups);
    if head >= BOTH { return; }
    let start = group.z * STRIDE + head * HEAD_DIM;
    var squares = 0.0;
    for (var i = t.index; i < HEAD_DIM; i += WORKGROUP) { squares += qkv[start + i] * qkv[start + i]; }
    let scale = 1.0 / sqrt(sum4(t, vec4(squares, 0.0, 0.0, 0.0)).x / f32(HEAD_DIM) + EPSILON);
    let weight = select(K_AT, Q_AT, head < HEADS);
    for (var i = t.index; i < HEAD_DIM; i += WORKGROUP) { qkv[start + i] *= scale * vectors[weight + i]; }
}
