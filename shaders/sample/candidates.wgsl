// What the programs that draw share. An output's logits are taken in slices; of each is kept, in `candidates`: its best
// logit and that one's id, its draw and that one's id, the sum of its weights, how many candidates it has; then up to MOST
// of these, a logit and an id each. Numbers lie there by their bits.
override WORKGROUP: u32 = 256u;
override VOCAB: u32;
override STRIDE: u32; // values from one row of logits to the next
override SLICES: u32;
#import step
#import reduce

const EACH = 4u;   // logits of a slice for each thread
const MOST = 128u; // candidates that a slice may have
const SLICE = 6u;  // words that tell of a slice
// How much lower than the highest, in units of the temperature, a logit may be to be a candidate. What lies below weighs
// next to nothing; where a filter reaches there all the same, draw.wgsl looks at all logits.
const LIKELY = 12.0;
const LOWEST = -0x1.fffffep+127; // of all finite numbers
const NO_ID = 0xffffffffu; // where no logit is a number

// Where in `candidates` a slice's words are, and those of one of its candidates.
fn slice_at(output: u32, slice: u32) -> u32 { return output * SLICES * (SLICE + 2u * MOST) + slice * SLICE; }
fn candidate_at(output: u32, slice: u32, i: u32) -> u32 {
    return slice_at(output, SLICES) + (slice * MOST + i) * 2u;
}
// The ids of a slice: runs of 64 from all over the vocabulary, for tokens that are often likely have low ids.
fn id_of(slice: u32, j: u32, t: Thread) -> u32 {
    return ((j * (WORKGROUP / 64u) + t.index / 64u) * SLICES + slice) * 64u + t.index % 64u;
}
// Of several outputs of a sequence, which lie side by side, the last counts.
fn counts(output: u32) -> bool {
    let next = output + 1u;
    return next >= output_count() || row_at(output_row(next)).sequence != row_at(output_row(output)).sequence;
}
// Whether some filter must know more than the highest logit.
fn filters(how: Draw) -> bool {
    return (how.top_k > 0u && how.top_k < VOCAB) || how.top_p < 1.0 || how.typical_p < 1.0 || how.rarest > 0.0
        || how.xtc_probability > 0.0;
}

struct Best { value: f32, id: u32 }
const NOBODY = Best(LOWEST, NO_ID);
var<workgroup> best_value: array<f32, WORKGROUP>;
var<workgroup> best_id: array<u32, WORKGROUP>;
// Whether a logit may be drawn: not where it is no number, or minus infinity. By its bits, for Metal compares as if there were
// neither.
fn is_drawable(logit: f32) -> bool {
    let bits = bitcast<u32>(logit);
    return (bits & 0x7fffffffu) <= 0x7f800000u && bits != 0xff800000u;
}
// The higher, of equals the lower id.
fn better(a: Best, b: Best) -> Best {
    if is_drawable(b.value) && (b.value > a.value || (b.value == a.value && b.id < a.id)) { return b; }
    return a;
}
// The best of all threads' own, for the first thread to know.
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
