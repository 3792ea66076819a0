// y = epilogue(W x), with W = [G; U] when GATED, for many rows (prefill), on cooperative matrices: small ones
// that the threads of a subgroup hold together, and that a device multiplies by one instruction. Operands are
// in f16, sums in f32. One workgroup computes a tile: TILE rows of the matrix ("lines" here) by TILE rows of
// x. Both operands pass through workgroup memory, 32 columns at a time. A thread loads its part of the next
// 32 columns into registers while the current ones are multiplied.
//
// A tile has four pieces, each of SIDE by SIDE matrices. One subgroup holds a piece's sums. Where a workgroup
// has more than four subgroups, some compute the last piece in vain; where it has fewer, the tile takes
// several rounds.
enable f16;
enable wgpu_cooperative_matrix;
// Control flow is uniform wherever matrices are used, but naga does not see that through calls of functions.
diagnostic(off, derivative_uniformity);
override WORKGROUP: u32;
override SIDE: u32; // 2 or 4
#import operands
#import step
#import weights
#import epilogue
#import matrices
override PIECE: u32 = SIDE * SIZE;
override TILE: u32 = 2u * PIECE;
const TURN = 4u;  // groups of eight columns in workgroup memory at a time
const PITCH = 5u; // groups from one line to the next: TURN + 1, so that neighbours are in different banks
override GROUPS: u32 = TILE * PITCH;           // groups of one operand's tile; that of x follows that of W
override TILES: u32 = 2u * GROUPS * ELEMENTS;  // elements of both
override LOADS: u32 = TILE * TURN / WORKGROUP; // groups of each operand that a thread loads a turn: 1, 2 or 4
// A matrix of results from each piece, on the way to the threads that finish them.
const RESULT_PITCH = SIZE + 4u;
const RESULTS = SIZE * RESULT_PITCH;
var<workgroup> results: array<f32, 4u * RESULTS>; // [piece][row][line]

// The outputs of a workgroup start at `first`, its rows at `first_row`; y has `count` rows.
struct Tile { first: u32, first_row: u32, count: u32 }

// How many outputs four lines give: 4, or 2 when GATED, where two lines of the gate are followed by the two
// lines of the up half that belong to them.
fn outputs() -> u32 { return select(4u, 2u, GATED); }

// The row of the matrix for a line of the tile; clamped to the last output's row.
fn matrix_row(tile: Tile, line: u32) -> u32 {
    if !GATED { return min(tile.first + line, ROWS - 1u); }
    return min(tile.first + line / 4u * 2u + line % 2u, ROWS - 1u) + line / 2u % 2u * ROWS;
}
// The row of x for a row of the tile; clamped to the last one.
fn x_row_of(tile: Tile, row: u32) -> u32 { return x_row(min(tile.first_row + row, tile.count - 1u)); }

// The `eight`-th group of eight columns in a row of the matrix (w_at) or of x (x_at). Past the last column
// w_at repeats the last group, and x_at gives zeros if these are ever multiplied. Neither branches, so that
// all loads can be under way at once.
fn w_at(row: u32, eight: u32) -> Eight {
    return weights8(row, min(eight, COLUMNS8 - 1u));
}
fn x_at(row: u32, eight: u32) -> Eight {
    let at = (row * COLUMNS8 + min(eight, COLUMNS8 - 1u)) * 2u;
    if COLUMNS8 % TURN == 0u { return Eight(x[at], x[at + 1u]); }
    let is_there = eight < COLUMNS8;
    return Eight(select(vec4(0.0), x[at], is_there), select(vec4(0.0), x[at + 1u], is_there));
}

// What a thread loads of a line and of a row.
struct Loaded { w: Eight, x: Eight }
fn fetch(w_row: u32, x_row: u32, eight: u32) -> Loaded {
    return Loaded(w_at(w_row, eight), x_at(x_row, eight));
}
fn store(at: u32, loaded: Loaded) {
    put(at, loaded.w);
    put(GROUPS + at, loaded.x);
}

// Where a piece starts among the lines and among the rows of the tile.
fn lines_of(piece: u32) -> u32 { return piece / 2u * PIECE; }
fn rows_of(piece: u32) -> u32 { return piece % 2u * PIECE; }

// Finishes the results of `count` pieces from `piece` on, whose matrices are at `across` among a piece's rows
// and at `down` among its lines.
fn finish_results(tile: Tile, piece: u32, count: u32, across: u32, down: u32, index: u32) {
    const FOURS = SIZE / 4u;
    for (var i = index; i < count * SIZE * FOURS; i += WORKGROUP) {
        let p = piece + i / (SIZE * FOURS);
        let row = i / FOURS % SIZE;
        let line = i % FOURS * 4u;
        let at = p * RESULTS + row * RESULT_PITCH + line;
        let product = vec4(results[at], results[at + 1u], results[at + 2u], results[at + 3u]);
        let y_row = tile.first_row + rows_of(p) + across * SIZE + row;
        let output = tile.first + (lines_of(p) + down * SIZE + line) / 4u * outputs();
        for (var j = 0u; j < outputs() && y_row < tile.count && output + j < ROWS; j++) {
            finish(y_row, output, j, product, product.zwzw);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    // Workgroups that run at the same time share their lines, so that these are read from memory once.
    let number = group.z * groups.y * groups.x + group_index(group, groups);
    let tile = Tile(TILE / 4u * outputs() * (number / groups.z), TILE * (number % groups.z), y_rows());
    if tile.first >= ROWS { return; }
    // What this thread loads, eight columns of up to four lines and of as many rows, and where it stores it.
    let eight = index % TURN;
    let line = index / TURN;
    let next = WORKGROUP / TURN;
    let lines = vec4(line, line + next, line + 2u * next, line + 3u * next);
    let to = line * PITCH + eight;
    let onward = next * PITCH;
    let w = vec4(
        matrix_row(tile, lines.x),
        matrix_row(tile, lines.y),
        matrix_row(tile, lines.z),
        matrix_row(tile, lines.w),
    );
    let v = vec4(
        x_row_of(tile, lines.x),
        x_row_of(tile, lines.y),
        x_row_of(tile, lines.z),
        x_row_of(tile, lines.w),
    );
    for (var first_piece = 0u; first_piece < 4u; first_piece += subgroups) {
        let piece = min(first_piece + subgroup, 3u);
        let lines_at = lines_of(piece) * PITCH * ELEMENTS;
        let rows_at = (GROUPS + rows_of(piece) * PITCH) * ELEMENTS;
        // The sums, by row and line. Not an array: that would not stay in registers.
        var c00 = Sums(); var c01 = Sums(); var c02 = Sums(); var c03 = Sums();
        var c10 = Sums(); var c11 = Sums(); var c12 = Sums(); var c13 = Sums();
        var c20 = Sums(); var c21 = Sums(); var c22 = Sums(); var c23 = Sums();
        var c30 = Sums(); var c31 = Sums(); var c32 = Sums(); var c33 = Sums();
        var l0 = fetch(w.x, v.x, eight);
        var l1 = l0;
        var l2 = l0;
        var l3 = l0;
        if LOADS > 1u { l1 = fetch(w.y, v.y, eight); }
        if LOADS > 2u {
            l2 = fetch(w.z, v.z, eight);
            l3 = fetch(w.w, v.w, eight);
        }
        store(to, l0);
        if LOADS > 1u { store(to + onward, l1); }
        if LOADS > 2u {
            store(to + 2u * onward, l2);
            store(to + 3u * onward, l3);
        }
        // A turn stores at its end what it loads at its start. Stores at the start of the next turn would
        // take the loads with them: compilers move these to where they are used.
        for (var i = 0u; i < COLUMNS8; i += TURN) {
            let more = i + TURN + eight;
            l0 = fetch(w.x, v.x, more);
            if LOADS > 1u { l1 = fetch(w.y, v.y, more); }
            if LOADS > 2u {
                l2 = fetch(w.z, v.z, more);
                l3 = fetch(w.w, v.w, more);
            }
            workgroupBarrier();
            const STEP = SIZE * PITCH * ELEMENTS; // from one matrix to the next
            for (var k = 0u; k < TURN * ELEMENTS; k += SIZE / 8u * ELEMENTS) {
                let xs = rows_at + k;
                let ws = lines_at + k;
                let a0 = coopLoadT<Left>(&tiles[xs], PITCH * ELEMENTS);
                let a1 = coopLoadT<Left>(&tiles[xs + STEP], PITCH * ELEMENTS);
                let b0 = coopLoad<Right>(&tiles[ws], PITCH * ELEMENTS);
                let b1 = coopLoad<Right>(&tiles[ws + STEP], PITCH * ELEMENTS);
                c00 = coopMultiplyAdd(a0, b0, c00);
                c01 = coopMultiplyAdd(a0, b1, c01);
                c10 = coopMultiplyAdd(a1, b0, c10);
                c11 = coopMultiplyAdd(a1, b1, c11);
                if SIDE > 2u {
                    let a2 = coopLoadT<Left>(&tiles[xs + 2u * STEP], PITCH * ELEMENTS);
                    let a3 = coopLoadT<Left>(&tiles[xs + 3u * STEP], PITCH * ELEMENTS);
                    let b2 = coopLoad<Right>(&tiles[ws + 2u * STEP], PITCH * ELEMENTS);
                    let b3 = coopLoad<Right>(&tiles[ws + 3u * STEP], PITCH * ELEMENTS);
                    c02 = coopMultiplyAdd(a0, b2, c02);
                    c03 = coopMultiplyAdd(a0, b3, c03);
                    c12 = coopMultiplyAdd(a1, b2, c12);
                    c13 = coopMultiplyAdd(a1, b3, c13);
                    c20 = coopMultiplyAdd(a2, b0, c20);
                    c21 = coopMultiplyAdd(a2, b1, c21);
                    c22 = coopMultiplyAdd(a2, b2, c22);
                    c23 = coopMultiplyAdd(a2, b3, c23);
                    c30 = coopMultiplyAdd(a3, b0, c30);
                    c31 = coopMultiplyAdd(a3, b1, c31);
                    c32 = coopMultiplyAdd(a3, b2, c32);
                    c33 = coopMultiplyAdd(a3, b3, c33);
                }
            }
            workgroupBarrier();
            store(to, l0);
            if LOADS > 1u { store(to + onward, l1); }
            if LOADS > 2u {
                store(to + 2u * onward, l2);
                store(to + 3u * onward, l3);
            }
        }
        let holds = first_piece + subgroup < 4u;
        let count = min(subgroups, 4u - first_piece);
        let at = piece * RESULTS;
        if holds { coopStoreT(c00, &results[at], RESULT_PITCH); }
        workgroupBarrier();
        finish_results(tile, first_piece, count, 0u, 0u, index);
        workgroupBarrier();
        if holds { coopStoreT(c01, &results[at], RESULT_PITCH); }
        workgroupBarrier();
        finish_results(tile, first_piece, count, 0u, 1u, index);
        workgroupBarrier();
        if holds { coopStoreT(c10, &results[at], RESULT_PITCH); }
        workgroupBarrier();
        finish_results(tile, first_piece, count, 1u, 0u, index);
        workgroupBarrier();
        if holds { coopStoreT(c11, &results[at], RESULT_PITCH); }
        workgroupBarrier();
        finish_results(tile, first_piece, count, 1u, 1u, index);
        workgroupBarrier();
        if SIDE > 2u {
            if holds { coopStoreT(c02, &results[at], RESULT_PITCH); }
            workgroupBarrier();
            finish_results(tile, first_piece, count, 0u, 2u, index);
            workgroupBarrier();
            if holds { coopStoreT(c03, &results[at], RESULT_PITCH); }
            workgroupBarrier();
            finish_results(tile, first_piece, count, 0u, 3u, index);
            workgroupBarrier();
            if holds { coopStoreT(c12, &results[at], RESULT_PITCH); }
            workgroupBarrier();
            finish_results(tile, first_piece, count, 1u, 2u, index);
            workgroupBarrier();
            if holds { coopStoreT(c13, &results[at], RESULT_PITCH); }
            workgroupBarrier();
            finish_results(tile, first_piece, count, 1u, 3u, index);
            workgroupBarrier();
            if holds { coopStoreT(c20, &results[at], RESULT_PITCH); }
            workgroupBarrier();
            finish_results(tile, first_piece, count, 2u, 0u, index);
            workgroupBarrier();
            if holds { coopStoreT(c21, &results[at], RESULT_PITCH); }
            workgroupBarrier();
            finish_results(tile, first_piece, count, 2u, 1u, index);
            workgroupBarrier();
            if holds { coopStoreT(c22, &results[at], RESULT_PITCH); }
            workgroupBarrier();
            finish_results(tile, first_piece, count, 2u, 2u, index);
            workgroupBarrier();
            if holds { coopStoreT(c23, &results[at], RESULT_PITCH); }
            workgroupBarrier();
            finish_results(tile, first_piece, count, 2u, 3u, index);
            workgroupBarrier();
            if holds { coopStoreT(c30, &results[at], RESULT_PITCH); }
            workgroupBarrier();
            finish_results(tile, first_piece, count, 3u, 0u, index);
            workgroupBarrier();
            if holds { coopStoreT(c31, &results[at], RESULT_PITCH); }
            workgroupBarrier();
            finish_results(tile, first_piece, count, 3u, 1u, index);
            workgroupBarrier();
            if holds { coopStoreT(c32, &results[at], RESULT_PITCH); }
            workgroupBarrier();
            finish_results(tile, first_piece, count, 3u, 2u, index);
            workgroupBarrier();
            if holds { coopStoreT(c33, &results[at], RESULT_PITCH); }
            workgroupBarrier();
            finish_results(tile, first_piece, count, 3u, 3u, index);
            workgroupBarrier();
        }
    }
}
