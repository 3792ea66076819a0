// ids[sequence] = the next token of a sequence, drawn from its last output's logits as src/sampling.rs defines it: one
// workgroup an output. Of several outputs of a sequence, which lie side by side, the last counts.
override WORKGROUP: u32 = 256u;
override VOCAB: u32;
override STRIDE: u32; // values from one row of logits to the next
#import step
#import reduce
#import random
@group(1) @binding(0) var<storage, read> logits: array<f32>;
@group(1) @binding(1) var<storage, read_write> ids: array<u32>;

const LOWEST = -3.4028235e38;
const NO_ID = 0xffffffffu; // where no logit is a number
var<workgroup> best_value: array<f32, WORKGROUP>;
var<workgroup> best_id: array<u32, WORKGROUP>;

// Logits in the order of unsigned numbers, and back.
fn key(v: f32) -> u32 {
    let bits = bitcast<u32>(v);
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}
fn value_of(k: u32) -> f32 { return bitcast<f32>(select(~k, k & 0x7fffffffu, k >= 0x80000000u)); }

// Of the logits that are at least `cut`: how many there are, and, when `weigh`, the sum of their weights.
fn above(t: Thread, start: u32, cut: f32, weigh: bool, top: f32, temperature: f32) -> f32 {
    var total = 0.0;
    for (var i = t.index; i < VOCAB; i += WORKGROUP) {
        let logit = logits[start + i];
        if logit >= cut {
            if weigh { total += exp((logit - top) / temperature); } else { total += 1.0; }
        }
    }
    return sum4(t, vec4(total, 0.0, 0.0, 0.0)).x;
}

// The highest cut above which there is enough, from `low` on: bit by bit.
fn cut_for(t: Thread, start: u32, low: f32, enough: f32, weigh: bool, top: f32, temperature: f32) -> f32 {
    var least = key(low);
    var most = key(top);
    for (var i = 0u; i < 32u; i++) {
        let middle = most - (most - least) / 2u;
        if above(t, start, value_of(middle), weigh, top, temperature) >= enough {
            least = middle;
        } else {
            most = max(middle, 1u) - 1u;
        }
    }
    return value_of(least);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, t: Thread) {
    let row = row_at(output_row(group.z));
    let next = group.z + 1u;
    if next < output_count() && row_at(output_row(next)).sequence == row.sequence { return; }
    let start = group.z * STRIDE;
    let how = sampling_of(row.sequence);
    let is_greedy = how.temperature == 0.0;
    var cut = LOWEST;
    var top = 0.0;
    if !is_greedy {
        var highest_here = LOWEST;
        for (var i = t.index; i < VOCAB; i += WORKGROUP) {
            let logit = logits[start + i];
            if logit > highest_here { highest_here = logit; }
        }
        top = highest(t, vec4(highest_here)).x;
        cut = max(cut, top + how.least);
        if how.top_k > 0u && how.top_k < VOCAB {
            cut = max(cut, cut_for(t, start, LOWEST, f32(how.top_k), false, top, 1.0));
        }
        if how.top_p < 1.0 {
            let enough = how.top_p * above(t, start, cut, true, top, how.temperature);
            cut = cut_for(t, start, cut, enough, true, top, how.temperature);
        }
    }
    var value = LOWEST;
    var id = NO_ID;
    for (var i = t.index; i < VOCAB; i += WORKGROUP) {
        let logit = logits[start + i];
        if logit >= cut {
            var drawn = logit;
            if !is_greedy { drawn = (logit - top) / how.temperature - ln(wait(how.seed, row.position + 1u, i)); }
            if drawn > value || id == NO_ID {
                value = drawn;
                id = i;
            }
        }
    }
    best_value[t.index] = value;
    best_id[t.index] = id;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if t.index < half {
            let other = best_value[t.index + half];
            let other_id = best_id[t.index + half];
            if other > best_value[t.index] || (other == best_value[t.index] && other_id < best_id[t.index]) {
                best_value[t.index] = other;
                best_id[t.index] = other_id;
            }
        }
    }
    if t.index == 0u { ids[row.sequence] = best_id[0]; }
}
