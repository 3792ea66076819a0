// Implements interface `reduce` with workgroup memory: reductions over the threads of a workgroup, by
// component. All threads must call these functions, and every thread gets the result. The order of the
// additions is fixed.
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

// Makes a reduced value uniform for the compiler, so that branches on it may contain barriers. Here it
// already is, because the reductions return it from workgroupUniformLoad.
fn agreed(t: Thread, value: vec4<f32>) -> vec4<f32> { return value; }
