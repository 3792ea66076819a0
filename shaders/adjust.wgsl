// Adds biases to logits and subtracts penalties, in place, as src/sampling/adjust.rs defines them. One
// workgroup per output; each thread handles one of the tokens that the step lists for the output's sequence.
override WORKGROUP: u32 = 64u;
override STRIDE: u32; // values from one row of logits to the next
#import step
@group(1) @binding(0) var<storage, read_write> logits: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let p = penalties_of(row_at(output_row(group.z)).sequence);
    for (var i = index; i < p.adjusted; i += WORKGROUP) {
        let to = adjusted_at(p, i);
        let at = group.z * STRIDE + to.token;
        var logit = logits[at] + to.bias;
        if to.count > 0u {
            logit = select(logit * p.repetition, logit / p.repetition, logit > 0.0);
            logit -= p.frequency * f32(to.count) + p.presence;
        }
        logits[at] = logit - to.dry;
    }
}
