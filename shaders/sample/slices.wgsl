// The first of three programs that sample: the highest logit and its token id in each slice of an output's
// logits. One workgroup per slice of an output.
#import candidates
@group(1) @binding(0) var<storage, read> logits: array<f32>;
@group(1) @binding(1) var<storage, read_write> candidates: array<u32>;

fn kernel(group: vec3<u32>, groups: vec3<u32>, t: Thread) {
    let slice = group_index(group, groups);
    if slice >= SLICES || !counts(group.z) { return; }
    var own = NOBODY;
    for (var j = 0u; j < EACH; j++) {
        let id = id_of(slice, j, t);
        if id < VOCAB { own = better(own, Best(logits[group.z * STRIDE + id], id)); }
    }
    let of_slice = best(t, own);
    if t.index == 0u {
        let at = slice_at(group.z, slice);
        candidates[at] = bitcast<u32>(of_slice.value);
        candidates[at + 1u] = of_slice.id;
    }
}
