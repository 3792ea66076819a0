// y = softmax(q k * scale) v over the positions in reach, in one pass with an online softmax: one workgroup for
// each query head and row, a tile of WORKGROUP positions at a time, each thread scoring one. Tiles start at
// multiples of WORKGROUP, so a row's sums are the same in whatever company it comes.
override WORKGROUP: u32 = 64u;
override HEAD_DIM: u32;
override HEADS: u32;      // query heads of this part
override FIRST_HEAD: u32; // the first of them
override GROUP: u32;      // query heads that share a key head
override STRIDE: u32;     // values from one row of qkv to the next
override WIDTH: u32;      // values of a key (or value) row in this part of the cache
override Y_STRIDE: u32;
#import step
#import reduce
@group(1) @binding(0) var<storage, read> qkv: array<f32>;
@group(1) @binding(1) var<storage, read> cache: array<f32>;
@group(1) @binding(2) var<storage, read> vectors: array<f32>; // the layer's: [0] scale, [1] window or 0
@group(1) @binding(3) var<storage, read_write> y: array<f32>;

const LOWEST = -3.0e38;
var<workgroup> query: array<f32, HEAD_DIM>;
var<workgroup> mixed: array<f32, HEAD_DIM>;
var<workgroup> weight: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    t: Thread,
) {
    let head = group_index(group, groups);
    if head >= HEADS { return; }
    let row = row_at(group.z);
    let end = row.position + 1u;
    let window = u32(vectors[1]);
    let start = select(0u, end - min(end, window), window > 0u);
    let key_at = head / GROUP * HEAD_DIM;
    for (var i = t.index; i < HEAD_DIM; i += WORKGROUP) {
        query[i] = qkv[group.z * STRIDE + (FIRST_HEAD + head) * HEAD_DIM + i] * vectors[0];
        mixed[i] = 0.0;
    }
    workgroupBarrier();
    var top = LOWEST;
    var total = 0.0;
    for (var tile = start / WORKGROUP * WORKGROUP; tile < end; tile += WORKGROUP) {
        let position = tile + t.index;
        let seen = position >= start && position < end;
        var score = LOWEST;
        if seen {
            let key = slot_of(row.sequence, position) * 2u * WIDTH + key_at;
            score = 0.0;
            for (var i = 0u; i < HEAD_DIM; i++) { score += query[i] * cache[key + i]; }
        }
        let new_top = max(top, highest(t, vec4(score)).x);
        let keep = exp(top - new_top);
        top = new_top;
        var w = 0.0;
        if seen { w = exp(score - top); }
        weight[t.index] = w;
        total = total * keep + sum4(t, vec4(w, 0.0, 0.0, 0.0)).x;
        let count = min(WORKGROUP, end - tile);
        for (var i = t.index; i < HEAD_DIM; i += WORKGROUP) {
            var value = mixed[i] * keep;
            for (var j = 0u; j < count; j++) {
                let at = slot_of(row.sequence, tile + j) * 2u * WIDTH + WIDTH + key_at;
                value += weight[j] * cache[at + i];
            }
            mixed[i] = value;
        }
        workgroupBarrier();
    }
    for (var i = t.index; i < HEAD_DIM; i += WORKGROUP) {
        y[group.z * Y_STRIDE + (FIRST_HEAD + head) * HEAD_DIM + i] = mixed[i] / total;
    }
}
