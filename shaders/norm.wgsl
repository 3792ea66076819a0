// Layer norm: y = (x - mean) / sqrt(variance + EPSILON) * weight + bias; without CENTER, RMS norm, where the
// mean is taken as 0. One workgroup per row. The variance is the mean of (x - mean)^2, never E[x^2] - E[x]^2,
// which cancels.
override WORKGROUP: u32 = 64u;
override WIDTH: u32;
override STRIDE: u32;     // values from one row to the next
override WEIGHT_AT: u32;  // where the weights start in the layer's vectors
override BIAS_AT: u32;    // where the bias starts
override EPSILON: f32;
override CENTER: bool;
override BIAS: bool;
#import step
#import reduce
@group(1) @binding(0) var<storage, read> x: array<f32>;
@group(1) @binding(1) var<storage, read> vectors: array<f32>;
@group(1) @binding(2) var<storage, read_write> y: array<f32>;

fn kernel(group: vec3<u32>, groups: vec3<u32>, t: Thread) {
    let start = group.z * STRIDE;
    var mean = 0.0;
    if CENTER {
        var total = 0.0;
        for (var i = t.index; i < WIDTH; i += WORKGROUP) { total += x[start + i]; }
        mean = sum4(t, vec4(total, 0.0, 0.0, 0.0)).x / f32(WIDTH);
    }
    var squares = 0.0;
    for (var i = t.index; i < WIDTH; i += WORKGROUP) {
        let difference = x[start + i] - mean;
        squares += difference * difference;
    }
    let variance = sum4(t, vec4(squares, 0.0, 0.0, 0.0)).x / f32(WIDTH);
    let scale = 1.0 / sqrt(variance + EPSILON);
    for (var i = t.index; i < WIDTH; i += WORKGROUP) {
        var value = (x[start + i] - mean) * scale * vectors[WEIGHT_AT + i];
        if BIAS { value += vectors[BIAS_AT + i]; }
        y[start + i] = value;
    }
}
