// interface `reduce`: the threads of a workgroup, and how they combine a value of each: here through subgroup
// operations, right for any subgroup size. Every thread gets the result; all must call. The order is fixed.
struct Thread { index: u32, subgroup: u32, subgroups: u32, lane: u32 }
var<workgroup> partial: array<vec4<f32>, WORKGROUP>; // one for each subgroup, which may be of a single thread

// What tells a thread where it is are arguments, each by itself: HLSL has no place in a struct for those of subgroups.
@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    kernel(group, groups, Thread(index, subgroup, subgroups, lane));
}

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

// The same value, known to be every thread's: what decides whether all of them reach a barrier.
fn agreed(t: Thread, value: vec4<f32>) -> vec4<f32> {
    if t.index == 0u { partial[0] = value; }
    return workgroupUniformLoad(&partial[0]);
}
