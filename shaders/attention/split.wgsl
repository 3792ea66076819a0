// y = softmax(q k * scale) v for few rows (decode). The context is split at multiples of SPLIT positions. One
// workgroup computes one split for one row and up to four query heads that share a key head, so it reads each
// key and value once for all of them. A row that attends to one split gets y from here; for other rows each
// split leaves a partial result in `partials`, and merge.wgsl computes y from them.
override SPLIT: u32;         // positions in a split, at least FOURS; each thread scores one
override WORKGROUP: u32 = SPLIT;
override AT_ONCE: u32;       // query heads per workgroup, which divide GROUP
override BUNDLES: u32;       // bundles of AT_ONCE query heads in this part of the cache
override HEADS: u32;         // query heads in all parts
override SPLITS: u32;        // splits of the longest context
#import heads
#import reduce
// [row][head][split][HEAD_DIM + 2]: the highest score, the sum of the weights, the HEAD_DIM weighted sums of
// values.
@group(1) @binding(4) var<storage, read_write> partials: array<f32>;

override QUERY: u32 = 4u * FOURS;
var<workgroup> query: array<vec4<f32>, QUERY>; // [head][vec4 of the head], scaled
var<workgroup> weight: array<vec4<f32>, WORKGROUP>; // [position], a component per head

// Sums `value` over the threads with the same index modulo FOURS. The sums are valid in the first FOURS
// threads.
fn gather(t: Thread, value: vec4<f32>) -> vec4<f32> {
    partial[t.index] = value;
    workgroupBarrier();
    var total = vec4(0.0);
    if t.index < FOURS {
        for (var i = t.index; i < WORKGROUP / FOURS * FOURS; i += FOURS) { total += partial[i]; }
    }
    workgroupBarrier();
    return total;
}

// Writes one head's result: to y if the row attends to this split alone (`whole`), else to `partials`. Each
// of the first FOURS threads passes its vec4 of the head in `mixed`.
fn leave(t: Thread, row: u32, head: u32, split: u32, whole: bool, top: f32, total: f32, mixed: vec4<f32>) {
    if t.index >= FOURS { return; }
    let at = ((row * HEADS + head) * SPLITS + split) * (HEAD_DIM + 2u);
    for (var j = 0u; j < 4u; j++) {
        let i = 4u * t.index + j;
        if i < HEAD_DIM {
            if whole {
                y[row * Y_STRIDE + head * HEAD_DIM + i] = mixed[j] / total;
            } else {
                partials[at + 2u + i] = mixed[j];
            }
        }
    }
    if !whole && t.index == 0u {
        partials[at] = top;
        partials[at + 1u] = total;
    }
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, t: Thread) {
    let id = group_index(group, groups);
    let bundle = id % BUNDLES;
    let split = id / BUNDLES;
    let row = row_at(group.z);
    let r = reach(row, u32(vectors[1]));
    let first_split = r.start / SPLIT;
    let last_split = (r.end - 1u) / SPLIT;
    if split < first_split || split > last_split { return; }
    let head = FIRST_HEAD + bundle * AT_ONCE;
    let key_head = bundle * AT_ONCE / GROUP * HEAD_DIM;
    for (var i = t.index; i < QUERY; i += WORKGROUP) {
        var q = vec4(0.0);
        if i / FOURS < AT_ONCE {
            q = query4(group.z * STRIDE + (head + i / FOURS) * HEAD_DIM, i % FOURS) * vectors[0];
        }
        query[i] = q;
    }
    workgroupBarrier();

    // KEY_LANES neighbours score a position together, so that they read adjacent parts of its key.
    let count = min(SPLIT, r.end - split * SPLIT);
    const KEY_LANES = 8u;
    for (var first = 0u; first < count; first += WORKGROUP / KEY_LANES) {
        let position = split * SPLIT + first + t.index / KEY_LANES;
        var part = vec4(0.0);
        if position >= r.start && position < r.end {
            let key = key_of(slot_of(row.sequence, position), key_head);
            for (var i = t.index % KEY_LANES; i < FOURS; i += KEY_LANES) {
                let k = kv4(key, i);
                part += vec4(
                    dot(query[i], k),
                    dot(query[FOURS + i], k),
                    dot(query[2u * FOURS + i], k),
                    dot(query[3u * FOURS + i], k),
                );
            }
        }
        partial[t.index] = part;
        workgroupBarrier();
        if t.index < WORKGROUP / KEY_LANES {
            var whole = vec4(0.0);
            for (var i = 0u; i < KEY_LANES; i++) { whole += partial[KEY_LANES * t.index + i]; }
            weight[first + t.index] = whole;
        }
        workgroupBarrier();
    }
    let position = split * SPLIT + t.index;
    let seen = position >= r.start && position < r.end;
    let score = select(vec4(LOWEST), weight[t.index], seen);
    let top = highest(t, score);
    let w = select(vec4(0.0), exp(score - top), seen);
    weight[t.index] = w;
    let total = sum4(t, w); // has a barrier: every thread's `weight` is visible from here on

    // Thread t mixes vec4 t % FOURS of the values; threads with the same vec4 share the positions among them.
    let four = t.index % FOURS;
    var a = vec4(0.0);
    var b = vec4(0.0);
    var c = vec4(0.0);
    var d = vec4(0.0);
    if t.index < WORKGROUP / FOURS * FOURS {
        for (var p = t.index / FOURS; p < count; p += WORKGROUP / FOURS) {
            let v = kv4(value_of(slot_of(row.sequence, split * SPLIT + p), key_head), four);
            a += weight[p].x * v;
            b += weight[p].y * v;
            c += weight[p].z * v;
            d += weight[p].w * v;
        }
    }
    let whole = first_split == last_split;
    let mixed_a = gather(t, a);
    leave(t, group.z, head, split, whole, top.x, total.x, mixed_a);
    if AT_ONCE > 1u {
        let mixed_b = gather(t, b);
        leave(t, group.z, head + 1u, split, whole, top.y, total.y, mixed_b);
    }
    if AT_ONCE > 2u {
        let mixed_c = gather(t, c);
        leave(t, group.z, head + 2u, split, whole, top.z, total.z, mixed_c);
    }
    if AT_ONCE > 3u {
        let mixed_d = gather(t, d);
        leave(t, group.z, head + 3u, split, whole, top.w, total.w, mixed_d);
    }
}
