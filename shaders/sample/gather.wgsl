// The second of three programs that sample: collects the candidates of each slice, ordered by thread and then
// as the thread reads them, and sums the weights of all logits of the slice. If no filter but min-p is on, it
// draws one token of the slice instead. One workgroup per slice of an output.
#import candidates
#import random
@group(1) @binding(0) var<storage, read> logits: array<f32>;
@group(1) @binding(1) var<storage, read_write> candidates: array<u32>;
var<workgroup> before: array<u32, WORKGROUP>;

// The sum of `value` over the threads up to and including this one.
fn running_sum(t: Thread, value: u32) -> u32 {
    var sum = value;
    for (var distance = 1u; distance < WORKGROUP; distance *= 2u) {
        before[t.index] = sum;
        workgroupBarrier();
        if t.index >= distance { sum += before[t.index - distance]; }
        workgroupBarrier();
    }
    return sum;
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, t: Thread) {
    let slice = group_index(group, groups);
    if slice >= SLICES || !counts(group.z) { return; }
    let row = row_at(output_row(group.z));
    let how = draw_of(row.sequence);
    if how.temperature == 0.0 { return; }
    var highest_here = LOWEST;
    for (var s = t.index; s < SLICES; s += WORKGROUP) {
        highest_here = max(highest_here, bitcast<f32>(candidates[slice_at(group.z, s)]));
    }
    let top = highest(t, vec4(highest_here)).x;
    let cut = max(LOWEST, top + how.min_p_margin);
    let at = slice_at(group.z, slice);
    if !filters(how) {
        var own = NOBODY;
        for (var j = 0u; j < EACH; j++) {
            let id = id_of(slice, j, t);
            if id >= VOCAB { break; }
            let logit = logits[group.z * STRIDE + id];
            if is_drawable(logit) && logit >= cut {
                own = better(
                    own,
                    Best((logit - top) / how.temperature - ln(wait(how.seed, row.position + 1u, id)), id),
                );
            }
        }
        let drawn = best(t, own);
        if t.index == 0u {
            candidates[at + 2u] = bitcast<u32>(drawn.value);
            candidates[at + 3u] = drawn.id;
        }
        return;
    }
    let likely = max(cut, top - LIKELY * how.temperature);
    var mass = 0.0;
    var count = 0u;
    for (var j = 0u; j < EACH; j++) {
        let id = id_of(slice, j, t);
        if id >= VOCAB { break; }
        let logit = logits[group.z * STRIDE + id];
        if is_drawable(logit) {
            mass += exp((logit - top) / how.temperature);
            if logit >= likely { count++; }
        }
    }
    mass = sum4(t, vec4(mass, 0.0, 0.0, 0.0)).x;
    let end = running_sum(t, count);
    if t.index == WORKGROUP - 1u {
        candidates[at + 4u] = bitcast<u32>(mass);
        candidates[at + 5u] = end;
    }
    var place = end - count;
    for (var j = 0u; j < EACH && place < MAX; j++) {
        let id = id_of(slice, j, t);
        if id >= VOCAB { break; }
        let logit = logits[group.z * STRIDE + id];
        if is_drawable(logit) && logit >= likely {
            let to = candidate_at(group.z, slice, place);
            candidates[to] = bitcast<u32>(logit);
            candidates[to + 1u] = id;
            place++;
        }
    }
}
