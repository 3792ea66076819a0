// interface `reduce`: combine a value of each thread over the workgroup, through subgroup operations; right for
// any subgroup size. Every thread gets the result; all must call. The order is fixed.
struct Thread {
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}
var<workgroup> partial: array<vec4<f32>, WORKGROUP>; // one for each subgroup, which may be of a single thread

fn sum4(t: Thread, value: vec4<f32>) -> vec4<f32> {
    let of_subgroup = subgroupAdd(value);
    if t.lane == 0u { partial[t.subgroup] = of_subgroup; }
    workgroupBarrier();
    var total = partial[0];
    for (var i = 1u; i < t.subgroups; i++) { total += partial[i]; }
    workgroupBarrier();
    return total;
}

fn highest(t: Thread, value: vec4<f32>) -> vec4<f32> {
    let of_subgroup = subgroupMax(value);
    if t.lane == 0u { partial[t.subgroup] = of_subgroup; }
    workgroupBarrier();
    var top = partial[0];
    for (var i = 1u; i < t.subgroups; i++) { top = max(top, partial[i]); }
    workgroupBarrier();
    return top;
}
