// Merges the partial results that split.wgsl left for each split of a row's context into y, each scaled to
// the highest score of all splits. One workgroup per row and query head. For a row that attends to positions
// of a single split, split.wgsl has already written y.
override WORKGROUP: u32 = 64u;
override SPLIT: u32;
override HEAD_DIM: u32;
override HEADS: u32;
override SPLITS: u32;
override Y_STRIDE: u32;
#import step
#import reach
@group(1) @binding(0) var<storage, read> partials: array<f32>; // laid out as split.wgsl writes them
@group(1) @binding(1) var<storage, read> vectors: array<f32>;  // [1] window, 0 for none
@group(1) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let head = group_index(group, groups);
    let r = reach(row_at(group.z), u32(vectors[1]));
    let first_split = r.start / SPLIT;
    let last_split = (r.end - 1u) / SPLIT;
    if head >= HEADS || first_split == last_split { return; }
    let first = (group.z * HEADS + head) * SPLITS;
    let stride = HEAD_DIM + 2u;
    var top = partials[(first + first_split) * stride];
    for (var s = first_split + 1u; s <= last_split; s++) { top = max(top, partials[(first + s) * stride]); }
    for (var i = index; i < HEAD_DIM; i += WORKGROUP) {
        var total = 0.0;
        var mixed = 0.0;
        for (var s = first_split; s <= last_split; s++) {
            let at = (first + s) * stride;
            let by = exp(partials[at] - top);
            total += by * partials[at + 1u];
            mixed += by * partials[at + 2u + i];
        }
        y[group.z * Y_STRIDE + head * HEAD_DIM + i] = mixed / total;
    }
}
