// interface `reduce`: combine a value of each thread over the workgroup, through workgroup memory.
// Every thread gets the result; all must call. The order is fixed.
struct Thread { @builtin(local_invocation_index) index: u32 }
var<workgroup> partial: array<vec4<f32>, WORKGROUP>;

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
