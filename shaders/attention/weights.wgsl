// y = the attention weights, softmax(q k * scale), for inspection: [row][head][position], zero at positions
// that a row does not attend to. One workgroup per row and head; each thread scores one position at a time.
override WORKGROUP: u32 = 64u;
override HEADS: u32;      // query heads of this part of the cache
override CONTEXT: u32;    // positions per head in y
#import heads
#import reduce

fn kernel(group: vec3<u32>, groups: vec3<u32>, t: Thread) {
    let local = group_index(group, groups);
    if local >= HEADS { return; }
    let row = row_at(group.z);
    let r = reach(row, u32(vectors[1]));
    let head = FIRST_HEAD + local;
    let query = group.z * STRIDE + head * HEAD_DIM;
    let to = group.z * Y_STRIDE + head * CONTEXT;
    var top_here = LOWEST;
    for (var p = t.index; p < CONTEXT; p += WORKGROUP) {
        if p < r.start || p >= r.end { continue; }
        let key = key_of(slot_of(row.sequence, p), local / GROUP * HEAD_DIM);
        var score = 0.0;
        for (var i = 0u; i < FOURS; i++) {
            score += dot(query4(query, i) * vectors[0], kv4(key, i));
        }
        y[to + p] = score;
        top_here = max(top_here, score);
    }
    let top = highest(t, vec4(top_here)).x;
    var sum_here = 0.0;
    for (var p = t.index; p < CONTEXT; p += WORKGROUP) {
        let seen = p >= r.start && p < r.end;
        var weight = 0.0;
        if seen { weight = exp(y[to + p] - top); }
        y[to + p] = weight;
        sum_here += weight;
    }
    let total = sum4(t, vec4(sum_here, 0.0, 0.0, 0.0)).x;
    for (var p = t.index; p < CONTEXT; p += WORKGROUP) { y[to + p] /= total; }
}
