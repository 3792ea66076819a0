// interface `reduce`: the threads of a workgroup, and how they combine a value of each: here through workgroup memory.
// Every thread gets the result; all must call. The order is fixed.
struct Thread { index: u32 }
var<workgroup> partial: array<vec4<f32>, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    kernel(group, groups, Thread(index));
}

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

// The same value, known to be every thread's: what decides whether all of them reach a barrier.
fn agreed(t: Thread, value: vec4<f32>) -> vec4<f32> { return value; }
