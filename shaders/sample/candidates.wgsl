// Shared by the three programs that sample: slices.wgsl, gather.wgsl and draw.wgsl, run in this order. Each
// output's logits are divided into slices. `candidates` holds, for each slice, SLICE words: [0] the highest
// logit, [1] its token id, [2] the score of the drawn token, [3] its id, [4] the sum of the weights
// exp((logit - top) / temperature), [5] the number of candidates; after the words of all slices come up to
// MAX candidates for each slice, a logit and an id each. Floats are stored as their bits.
override WORKGROUP: u32 = 256u;
override VOCAB: u32;
override STRIDE: u32; // values from one row of logits to the next
override SLICES: u32; // slices of one row of logits
#import step
#import reduce

const EACH = 4u;   // logits of a slice that each thread reads
const MAX = 128u; // candidates that are stored per slice
const SLICE = 6u;  // words per slice, without its candidates
// A logit is a candidate if it is at most LIKELY temperatures below the highest logit. Lower ones weigh next
// to nothing; if a filter needs them after all, draw.wgsl reads all logits.
const LIKELY = 12.0;
const LOWEST = -0x1.fffffep+127; // lowest finite f32
const NO_ID = 0xffffffffu; // id that stands for "no token": no logit can be drawn

// Where a slice's words start in `candidates`, and where those of its i-th candidate start.
fn slice_at(output: u32, slice: u32) -> u32 { return output * SLICES * (SLICE + 2u * MAX) + slice * SLICE; }
fn candidate_at(output: u32, slice: u32, i: u32) -> u32 {
    return slice_at(output, SLICES) + (slice * MAX + i) * 2u;
}
// The j-th token id that thread t reads of a slice. A slice consists of runs of 64 ids spread over the
// vocabulary, because likely tokens often have low ids and would otherwise crowd into a few slices.
fn id_of(slice: u32, j: u32, t: Thread) -> u32 {
    return ((j * (WORKGROUP / 64u) + t.index / 64u) * SLICES + slice) * 64u + t.index % 64u;
}
// Whether to sample from an output: it is the last of its sequence's outputs, which are adjacent.
fn counts(output: u32) -> bool {
    let next = output + 1u;
    return next >= output_count() || row_at(output_row(next)).sequence != row_at(output_row(output)).sequence;
}
// Whether a filter is on that needs more than the highest logit. Min-p does not.
fn filters(how: Draw) -> bool {
    let by_rank = (how.top_k > 0u && how.top_k < VOCAB) || how.top_p < 1.0;
    return by_rank || how.typical_p < 1.0 || how.mirostat_min_p > 0.0 || how.xtc_probability > 0.0;
}

struct Best { value: f32, id: u32 }
const NOBODY = Best(LOWEST, NO_ID);
var<workgroup> best_value: array<f32, WORKGROUP>;
var<workgroup> best_id: array<u32, WORKGROUP>;
// Whether a logit may be drawn: it is neither NaN nor minus infinity. Tests the bits, because float
// comparisons on Metal assume that neither occurs.
fn is_drawable(logit: f32) -> bool {
    let bits = bitcast<u32>(logit);
    return (bits & 0x7fffffffu) <= 0x7f800000u && bits != 0xff800000u;
}
// The one with the higher value; of equal values, the one with the lower id.
fn better(a: Best, b: Best) -> Best {
    if is_drawable(b.value) && (b.value > a.value || (b.value == a.value && b.id < a.id)) { return b; }
    return a;
}
// The best of the values that all threads pass in. Only thread 0 may use the result.
fn best(t: Thread, own: Best) -> Best {
    best_value[t.index] = own.value;
    best_id[t.index] = own.id;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if t.index < half {
            let other = t.index + half;
            let winner = better(
                Best(best_value[t.index], best_id[t.index]),
                Best(best_value[other], best_id[other]),
            );
            best_value[t.index] = winner.value;
            best_id[t.index] = winner.id;
        }
    }
    return Best(best_value[0], best_id[0]);
}
