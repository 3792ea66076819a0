// Implements interface `reduce` with workgroup memory: reductions over the threads of a workgroup, by
// component. All threads must call these functions, and every thread gets the result. The order of the
// additions is fixed.
struct Thread { index: u32 }
override SUMS: u32 = 1u; // sums that a program makes at once
override PARTS: u32 = SUMS * WORKGROUP;
var<workgroup> partial: array<vec4<f32>, PARTS>; // [sum][thread]

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    kernel(group, groups, Thread(index));
}

// Several sums at once, with one wait for all: each thread leaves its part of each sum below SUMS, then the
// threads meet, and from then on every thread can read the sums.
fn leave_part(t: Thread, sum: u32, value: vec4<f32>) { partial[sum * WORKGROUP + t.index] = value; }
fn meet(t: Thread) {
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if t.index < half {
            for (var at = t.index; at < PARTS; at += WORKGROUP) { partial[at] += partial[at + half]; }
        }
    }
    workgroupBarrier();
}
fn sum_of_parts(t: Thread, sum: u32) -> vec4<f32> { return partial[sum * WORKGROUP]; }

fn sum4(t: Thread, value: vec4<f32>) -> vec4<f32> {
    partial[t.index] = value;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if t.index < half { partial[t.index] += partial[t.index + half]; }
    }
    return workgroupUniformLoad(&partial[0]);
}

fn highest(t: Thread, value: vec4<f32>) -> vec4<f32> {
    partial[t.index] = value;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if t.index < half { partial[t.index] = max(partial[t.index], partial[t.index + half]); }
    }
    return workgroupUniformLoad(&partial[0]);
}

// Makes a reduced value uniform for the compiler, so that branches on it may contain barriers. Here it
// already is, because the reductions return it from workgroupUniformLoad.
fn agreed(t: Thread, value: vec4<f32>) -> vec4<f32> { return value; }
