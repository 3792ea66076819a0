// y = softmax(q k * scale) v for many rows (prefill), in one pass with an online softmax. One workgroup
// computes one query head for a tile of ROWS rows. It loads KEYS positions at a time into workgroup memory,
// where all rows of the same sequence share them. Each load starts at a multiple of KEYS, and positions that
// a row does not attend to leave its sums unchanged, so a row's result does not depend on the other rows in
// its tile.
const WORKGROUP = 256u;
override KEYS: u32;       // positions per load; KEYS * FOURS is at most 512
override ROWS: u32;       // rows per tile; ROWS * KEYS and ROWS * FOURS are at most WORKGROUP
override HEADS: u32;      // query heads of this part of the cache
#import heads
override PITCH: u32 = FOURS | 1u; // vec4s from one key to the next: odd, so neighbours read different banks
override QUERY: u32 = ROWS * FOURS;
override TILE: u32 = KEYS * PITCH;
var<workgroup> query: array<vec4<f32>, QUERY>;  // [row][vec4 of the head], scaled
var<workgroup> tile: array<vec4<f32>, TILE>;    // [position][vec4 of the head]: keys, later values
var<workgroup> score: array<f32, WORKGROUP>;    // [row][position]
var<workgroup> weight: array<f32, WORKGROUP>;   // [row][position]
var<workgroup> keep: array<f32, WORKGROUP>;     // [row]: factor that rescales the sums so far

// Loads a head's keys, or its values, of KEYS positions from `first` on into `tile`; positions from `end` on
// are zero.
fn fetch(index: u32, sequence: u32, first: u32, end: u32, key_head: u32, values: bool) {
    for (var from_ = 0u; from_ < KEYS * FOURS; from_ += WORKGROUP) {
        let i = from_ + index;
        if i < KEYS * FOURS {
            let position = first + i / FOURS;
            var four = vec4(0.0);
            if position < end {
                let slot = slot_of(sequence, position);
                four = kv4(select(key_of(slot, key_head), value_of(slot, key_head), values), i % FOURS);
            }
            tile[i / FOURS * PITCH + i % FOURS] = four;
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let head = group_index(group, groups);
    if head >= HEADS { return; }
    let first_row = group.z * ROWS;
    let count = min(ROWS, row_count() - first_row);
    let window = u32(vectors[1]);
    let key_head = head / GROUP * HEAD_DIM;
    // Each thread has two jobs: it scores position `key` of row `scored`, and it sums vec4 `four` of row
    // `mixes`.
    let scored = index / KEYS;
    let key = index % KEYS;
    let mixes = index / FOURS;
    let four = index % FOURS;
    if mixes < count {
        query[index] =
            query4((first_row + mixes) * STRIDE + (FIRST_HEAD + head) * HEAD_DIM, four) * vectors[0];
    }
    var top = LOWEST; // highest score of row `scored` so far
    var total = 0.0;  // sum of the weights of row `mixes`
    var mixed = vec4(0.0);
    // For each run of rows of the same sequence.
    var to = 0u;
    while to < count {
        let from_row = to;
        let sequence = row_at(first_row + to).sequence;
        var start = 0xffffffffu;
        var end = 0u;
        while to < count && row_at(first_row + to).sequence == sequence {
            let seen = reach(row_at(first_row + to), window);
            start = min(start, seen.start);
            end = max(end, seen.end);
            to++;
        }
        var seen = Reach(0u, 0u);
        if scored >= from_row && scored < to { seen = reach(row_at(first_row + scored), window); }
        for (var first = start / KEYS * KEYS; first < end; first += KEYS) {
            fetch(index, sequence, first, end, key_head, false);
            workgroupBarrier();
            var s = LOWEST;
            if first + key >= seen.start && first + key < seen.end {
                s = 0.0;
                for (var i = 0u; i < FOURS; i++) {
                    s += dot(query[scored * FOURS + i], tile[key * PITCH + i]);
                }
            }
            score[index] = s;
            workgroupBarrier();
            fetch(index, sequence, first, end, key_head, true);
            var new_top = top;
            for (var i = 0u; i < KEYS; i++) { new_top = max(new_top, score[scored * KEYS + i]); }
            weight[index] = select(exp(s - new_top), 0.0, s == LOWEST);
            if key == 0u { keep[scored] = exp(top - new_top); }
            top = new_top;
            workgroupBarrier();
            if mixes < ROWS {
                total *= keep[mixes];
                mixed *= keep[mixes];
                for (var i = 0u; i < KEYS; i++) {
                    total += weight[mixes * KEYS + i];
                    mixed += weight[mixes * KEYS + i] * tile[i * PITCH + four];
                }
            }
            workgroupBarrier();
        }
    }
    if mixes >= count { return; }
    mixed /= total;
    let at = (first_row + mixes) * Y_STRIDE + (FIRST_HEAD + head) * HEAD_DIM + 4u * four;
    for (var j = 0u; j < 4u; j++) { if 4u * four + j < HEAD_DIM { y[at + j] = mixed[j]; } }
}
