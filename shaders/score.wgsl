// y = ln softmax(logits)[target] for each output that has a target. One workgroup per output.
override WORKGROUP: u32 = 256u;
override VOCAB: u32;
override STRIDE: u32;   // values from one row of logits to the next
override Y_STRIDE: u32; // values from one row of y to the next
#import step
#import reduce
@group(1) @binding(0) var<storage, read> logits: array<f32>;
@group(1) @binding(1) var<storage, read_write> y: array<f32>;

fn kernel(group: vec3<u32>, groups: vec3<u32>, t: Thread) {
    let start = group.z * STRIDE;
    var top = logits[start];
    for (var i = t.index; i < VOCAB; i += WORKGROUP) { top = max(top, logits[start + i]); }
    top = highest(t, vec4(top)).x;
    var total = 0.0;
    for (var i = t.index; i < VOCAB; i += WORKGROUP) { total += exp(logits[start + i] - top); }
    total = sum4(t, vec4(total, 0.0, 0.0, 0.0)).x;
    if t.index == 0u { y[group.z * Y_STRIDE] = logits[start + target_of(group.z)] - top - log(total); }
}
