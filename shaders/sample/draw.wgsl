// The third of three programs that sample: ids[sequence] = the next token of a sequence, drawn from the
// logits of its last output as src/sampling/draw.rs defines it. One workgroup per output. Each filter becomes
// a cut, a lowest logit that it keeps. The cuts are searched among the candidates, or among all logits if the
// candidates do not suffice.
#import candidates
#import random
@group(1) @binding(0) var<storage, read> logits: array<f32>;
@group(1) @binding(1) var<storage, read> candidates: array<u32>;
@group(1) @binding(2) var<storage, read_write> ids: array<u32>;

// The set in which a cut is searched: the candidates of an output, or all its logits if `all`; `count` is the
// number of places to look at. A cut is on the logit, or, if `is_near`, on the nearness of the logit to
// `center`, among logits of at least `lowest`.
struct Among {
    output: u32,
    all: bool,
    count: u32,
    top: f32,
    temperature: f32,
    is_near: bool,
    center: f32,
    lowest: f32,
}
fn among(output: u32, all: bool, top: f32, temperature: f32) -> Among {
    return Among(output, all, select(SLICES * MAX, VOCAB, all), top, temperature, false, top, LOWEST);
}
// The logit and id at the i-th place; NOBODY if the place is empty or its logit cannot be drawn.
fn candidate(a: Among, i: u32) -> Best {
    if a.all {
        let logit = logits[a.output * STRIDE + i];
        if is_drawable(logit) { return Best(logit, i); }
        return NOBODY;
    }
    let slice = i / MAX;
    if i % MAX >= candidates[slice_at(a.output, slice) + 5u] { return NOBODY; }
    let at = candidate_at(a.output, slice, i % MAX);
    return Best(bitcast<f32>(candidates[at]), candidates[at + 1u]);
}
// The quantity that a cut is on: the logit, or its nearness to the center, as a number that is at most 0.
fn measured(a: Among, logit: f32) -> f32 { return select(logit, -abs(logit - a.center), a.is_near); }
fn is_at_least(a: Among, c: Best, cut: f32) -> bool {
    return c.id != NO_ID && c.value >= a.lowest && measured(a, c.value) >= cut;
}
fn weight_of(a: Among, logit: f32) -> f32 { return exp((logit - a.top) / a.temperature); }
// The logit whose weight is `share` of the weight `total`.
fn logit_of(a: Among, share: f32, total: f32) -> f32 {
    return a.top + a.temperature * ln(max(share * total, 1e-30));
}
// For each of four ascending cuts: how many candidates are at least the cut, or, with `weigh`, the sum of
// their weights.
fn above(t: Thread, a: Among, cuts: vec4<f32>, weigh: bool) -> vec4<f32> {
    var total = vec4(0.0);
    for (var i = t.index; i < a.count; i += WORKGROUP) {
        let c = candidate(a, i);
        if is_at_least(a, c, cuts.x) {
            var weight = 1.0;
            if weigh { weight = weight_of(a, c.value); }
            total += select(vec4(0.0), vec4(weight), vec4(measured(a, c.value)) >= cuts);
        }
    }
    return agreed(t, sum4(t, total));
}
// Maps floats to unsigned integers of the same order (key), and back (value_of).
fn key(v: f32) -> u32 {
    let bits = bitcast<u32>(v);
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}
fn value_of(k: u32) -> f32 { return bitcast<f32>(select(~k, k & 0x7fffffffu, k >= 0x80000000u)); }
// The highest cut at which the count or weight of the candidates (see `above`) is still at least `enough`; it
// is at least `low`, which is taken to satisfy this. Each round divides the search interval by five.
fn cut_for(t: Thread, a: Among, low: f32, enough: f32, weigh: bool) -> f32 {
    var least = key(low);
    var most = key(select(a.top, 0.0, a.is_near));
    while least < most {
        let fifth = (most - least) / 5u + 1u;
        // min keeps each key at most `most`, without overflow.
        let k1 = least + min(fifth, most - least);
        let k2 = k1 + min(fifth, most - k1);
        let k3 = k2 + min(fifth, most - k2);
        let k4 = k3 + min(fifth, most - k3);
        let is_enough =
            above(t, a, vec4(value_of(k1), value_of(k2), value_of(k3), value_of(k4)), weigh) >= vec4(enough);
        if is_enough.w { least = k4; } else {
            most = k4 - 1u;
            if is_enough.z { least = k3; } else {
                most = min(most, k3 - 1u);
                if is_enough.y { least = k2; } else {
                    most = min(most, k2 - 1u);
                    if is_enough.x { least = k1; } else { most = min(most, k1 - 1u); }
                }
            }
        }
    }
    return value_of(least);
}

// The best over all slices of the pair (value, id) that starts at word `place` of each slice: 0 for the
// highest logit, 2 for the drawn token. Only thread 0 may use the result.
fn best_of_slices(t: Thread, output: u32, place: u32) -> Best {
    var own = NOBODY;
    for (var s = t.index; s < SLICES; s += WORKGROUP) {
        let at = slice_at(output, s) + place;
        own = better(own, Best(bitcast<f32>(candidates[at]), candidates[at + 1u]));
    }
    return best(t, own);
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, t: Thread) {
    if !counts(group.z) { return; }
    let row = row_at(output_row(group.z));
    let how = draw_of(row.sequence);
    let is_greedy = how.temperature == 0.0;
    if is_greedy || !filters(how) {
        let drawn = best_of_slices(t, group.z, select(2u, 0u, is_greedy));
        if t.index == 0u { ids[row.sequence] = drawn.id; }
        return;
    }
    // Over all slices: the highest logit; and in `here` the weight of all logits, the number of candidates,
    // and how many slices have more candidates than are stored.
    var highest_here = LOWEST;
    var here = vec4(0.0);
    for (var s = t.index; s < SLICES; s += WORKGROUP) {
        let at = slice_at(group.z, s);
        highest_here = max(highest_here, bitcast<f32>(candidates[at]));
        let count = candidates[at + 5u];
        here += vec4(bitcast<f32>(candidates[at + 4u]), f32(count), select(0.0, 1.0, count > MAX), 0.0);
    }
    let top = agreed(t, highest(t, vec4(highest_here))).x;
    let slices = agreed(t, sum4(t, here));
    let least = max(LOWEST, top + how.min_p_margin);
    let likely = max(least, top - LIKELY * how.temperature);
    var all = slices.z > 0.0;
    var cut = LOWEST;
    var weight = slices.x; // total weight of the tokens that the filters so far keep
    if how.top_k > 0u && how.top_k < VOCAB {
        let k = f32(how.top_k);
        // With fewer than k candidates, min-p may be the stricter filter, and top-k then changes nothing; but
        // top-p needs the weight of exactly the top k.
        all = all || (slices.y < k && (likely > least || how.top_p < 1.0));
        if all || slices.y >= k {
            cut = cut_for(t, among(group.z, all, top, 1.0), select(likely, LOWEST, all), k, false);
            weight = above(t, among(group.z, all, top, how.temperature), vec4(cut), true).x;
        }
    }
    if how.top_p < 1.0 {
        let enough = how.top_p * weight;
        var reached = true;
        if !all && cut < likely {
            reached = above(t, among(group.z, false, top, how.temperature), vec4(likely), true).x >= enough;
            all = !reached && likely > least;
        }
        // If the weight of what min-p keeps is not enough, min-p is the stricter filter.
        if reached || all {
            let from_ = select(max(cut, likely), cut, all);
            cut = cut_for(t, among(group.z, all, top, how.temperature), from_, enough, true);
        }
    }
    cut = max(cut, least);
    if how.mirostat_min_p > 0.0 {
        cut = min(top, logit_of(among(group.z, all, top, how.temperature), how.mirostat_min_p, weight));
    }
    // From here on, every token that is kept must be in the set `a`.
    all = all || cut < likely;
    var a = among(group.z, all, top, how.temperature);
    if how.typical_p < 1.0 {
        var moment = vec4(0.0);
        for (var i = t.index; i < a.count; i += WORKGROUP) {
            let c = candidate(a, i);
            let w = weight_of(a, c.value);
            // A logit with weight 0 may be infinitely far below the top: skip it, or the moment is NaN.
            if is_at_least(a, c, cut) && w > 0.0 {
                moment += vec4(w, w * (c.value - top) / how.temperature, 0.0, 0.0);
            }
        }
        moment = agreed(t, sum4(t, moment));
        // From here on, `cut` is on the nearness to the mean logit, and `lowest` keeps the cut on the logit.
        a.is_near = true;
        a.center = top + how.temperature * (moment.y / moment.x);
        a.lowest = cut;
        cut = cut_for(t, a, LOWEST, how.typical_p * moment.x, true);
    }
    var ceiling = top;
    if how.xtc_probability > 0.0 && coin(how.seed, row.position + 1u) < how.xtc_probability {
        let line = logit_of(a, how.xtc_threshold, above(t, a, vec4(cut), true).x);
        var count = 0.0;
        var last = -LOWEST;
        for (var i = t.index; i < a.count; i += WORKGROUP) {
            let c = candidate(a, i);
            if is_at_least(a, c, cut) && c.value >= line {
                count += 1.0;
                last = min(last, c.value);
            }
        }
        count = agreed(t, sum4(t, vec4(count, 0.0, 0.0, 0.0))).x;
        let lowest = -agreed(t, highest(t, vec4(-last))).x;
        if count >= 2.0 { ceiling = lowest; }
    }
    var own = NOBODY;
    for (var i = t.index; i < a.count; i += WORKGROUP) {
        let c = candidate(a, i);
        if is_at_least(a, c, cut) && c.value <= ceiling {
            own = better(
                own,
                Best((c.value - top) / how.temperature - ln(wait(how.seed, row.position + 1u, c.id)), c.id),
            );
        }
    }
    let drawn = best(t, own);
    if how.mirostat_min_p > 0.0 { weight = above(t, a, vec4(cut), true).x; }
    if t.index == 0u {
        ids[row.sequence] = drawn.id;
        if how.mirostat_min_p > 0.0 && drawn.id != NO_ID {
            ids[arrayLength(&ids) / 2u + row.sequence] =
                bitcast<u32>(weight_of(a, logits[group.z * STRIDE + drawn.id]) / weight);
        }
    }
}
