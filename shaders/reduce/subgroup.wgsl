// Implements interface `reduce` with subgroup operations, for any subgroup size: reductions over the threads
// of a workgroup, by component. All threads must call these functions, and every thread gets the result. The
// order of the additions is fixed.
struct Thread { index: u32, subgroup: u32, subgroups: u32, lane: u32 }
override SUMS: u32 = 1u; // sums that a program makes at once
// [sum][subgroup]; a subgroup has at least four threads, or a single one where there are at most four sums.
override PARTS: u32 = max(4u, SUMS) * WORKGROUP / 4u;
var<workgroup> partial: array<vec4<f32>, PARTS>;

// The built-in values are separate arguments, not fields of a struct: HLSL cannot have the subgroup ones in a
// struct.
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

// Several sums at once, with one wait for all: each thread leaves its part of each sum below SUMS, then the
// threads meet, and from then on every thread can read the sums.
fn leave_part(t: Thread, sum: u32, value: vec4<f32>) {
    let of_subgroup = subgroupAdd(value);
    if t.lane == 0u { partial[sum * t.subgroups + t.subgroup] = of_subgroup; }
}
fn meet(t: Thread) { workgroupBarrier(); }
fn sum_of_parts(t: Thread, sum: u32) -> vec4<f32> {
    let first = sum * t.subgroups;
    var total = partial[first];
    for (var i = 1u; i < t.subgroups; i++) { total += partial[first + i]; }
    return total;
}

fn sum4(t: Thread, value: vec4<f32>) -> vec4<f32> {
    leave_part(t, 0u, value);
    meet(t);
    let total = sum_of_parts(t, 0u);
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

// Makes a value that is the same in all threads uniform for the compiler too, so that branches on it may
// contain barriers.
fn agreed(t: Thread, value: vec4<f32>) -> vec4<f32> {
    if t.index == 0u { partial[0] = value; }
    return workgroupUniformLoad(&partial[0]);
}
