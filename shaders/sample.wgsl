// ids[sequence] = the id of the highest logit, the lowest id of those that share it: one workgroup an output. Of
// several outputs of a sequence, which lie side by side, the last counts.
override WORKGROUP: u32 = 256u;
override VOCAB: u32;
override STRIDE: u32; // values from one row of logits to the next
#import step
@group(1) @binding(0) var<storage, read> logits: array<f32>;
@group(1) @binding(1) var<storage, read_write> ids: array<u32>;

var<workgroup> best_value: array<f32, WORKGROUP>;
var<workgroup> best_id: array<u32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let sequence = row_at(output_row(group.z)).sequence;
    let next = group.z + 1u;
    if next < output_count() && row_at(output_row(next)).sequence == sequence { return; }
    let start = group.z * STRIDE;
    var value = -3.4e38;
    var id = 0xffffffffu; // stays so where no logit is a number
    for (var i = index; i < VOCAB; i += WORKGROUP) {
        let logit = logits[start + i];
        if logit > value {
            value = logit;
            id = i;
        }
    }
    best_value[index] = value;
    best_id[index] = id;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if index < half {
            let other = best_value[index + half];
            let other_id = best_id[index + half];
            if other > best_value[index] || (other == best_value[index] && other_id < best_id[index]) {
                best_value[index] = other;
                best_id[index] = other_id;
            }
        }
    }
    if index == 0u { ids[sequence] = best_id[0]; }
}
