// y = epilogue(W x), with W = [G; U] when GATED, for many rows (prefill), on cooperative matrices: small
// matrices that the invocations of a subgroup hold together, and that a device multiplies by one instruction.
// Operands are in f16, sums in f32. One workgroup computes a tile: TILE rows of the matrix ("lines" here) by
// TILE rows of x. Both operands pass through workgroup memory, 32 columns at a time. The threads load their
// part of the next 32 columns into registers while the current ones are multiplied.
//
// A tile has four pieces. Each is one subgroup's, which holds its sums, SIDE by SIDE matrices. If a workgroup
// has more than four subgroups, the others only load; if it has fewer, it takes several rounds.
enable f16;
enable wgpu_cooperative_matrix;
// Subgroups branch on their number. naga has no name of its own for the rule against that.
diagnostic(off, derivative_uniformity);
override WORKGROUP: u32; // threads: 128 or 256
override SIDE: u32;      // matrices along a side of a piece: 2 or 4
override PIECE: u32 = SIDE * SIZE;
override TILE: u32 = 2u * PIECE;
#import operands
#import step
#import weights
#import epilogue
#import matrices
const TURN = 4u;  // groups of eight columns in workgroup memory at a time
const PITCH = 5u; // groups from one line to the next: TURN + 1, so that neighbours write different banks
override X_TILE: u32 = TILE * PITCH;      // where the rows of x start in `tiles`, after the lines
override TILES: u32 = 2u * X_TILE * ELEMENTS;
override LOADS: u32 = TILE * TURN / WORKGROUP; // groups of each operand that a thread loads at a time
// The results of a matrix of each piece, on their way to the threads that finish them.
const RESULT_PITCH = SIZE + 4u;
const RESULTS = SIZE * RESULT_PITCH;
var<workgroup> results: array<f32, 4u * RESULTS>;

// How many outputs four lines give: 4, or 2 when GATED, where two lines of the gate are followed by the two
// lines of the up half that belong to them.
fn outputs() -> u32 { return select(4u, 2u, GATED); }

// The row of the matrix for a line of the tile whose first output is `first`; clamped to the last output's
// row.
fn matrix_row(first: u32, line: u32) -> u32 {
    if !GATED { return min(first + line, ROWS - 1u); }
    return min(first + line / 4u * 2u + line % 2u, ROWS - 1u) + line / 2u % 2u * ROWS;
}

// The `eight`-th group of eight columns in a row of the matrix (w_at) or of x (x_at); zeros past the last
// column.
fn w_at(row: u32, eight: u32) -> Eight {
    if eight >= COLUMNS8 { return Eight(vec4(0.0), vec4(0.0)); }
    return weights8(row, eight, shared32(row, eight / 4u));
}
fn x_at(row: u32, eight: u32) -> Eight {
    if eight >= COLUMNS8 { return Eight(vec4(0.0), vec4(0.0)); }
    let at = (row * COLUMNS8 + eight) * 2u;
    return Eight(x[at], x[at + 1u]);
}

// Where piece `piece` starts among the lines and among the rows of the tile.
fn lines_of(piece: u32) -> u32 { return piece / 2u * PIECE; }
fn rows_of(piece: u32) -> u32 { return piece % 2u * PIECE; }

// Finishes a matrix of `count` pieces from `first_piece` on, at row `across` and line `down` of each piece.
fn finish_matrices(tile: Tile, pieces: vec2<u32>, across: u32, down: u32, index: u32) {
    const FOURS = SIZE / 4u;
    for (var i = index; i < pieces.y * SIZE * FOURS; i += WORKGROUP) {
        let piece = pieces.x + i / (SIZE * FOURS);
        let row = i / FOURS % SIZE;
        let four = i % FOURS;
        let y_row = tile.first_row + rows_of(piece) + SIZE * across + row;
        let line = lines_of(piece) + SIZE * down + 4u * four;
        let output = tile.first + line / 4u * outputs();
        if y_row >= tile.count { continue; }
        let at = piece * RESULTS + row * RESULT_PITCH + 4u * four;
        let product = vec4(results[at], results[at + 1u], results[at + 2u], results[at + 3u]);
        for (var j = 0u; j < outputs() && output + j < ROWS; j++) {
            finish(y_row, output, j, product, product.zwzw);
        }
    }
}
struct Tile { first: u32, first_row: u32, count: u32 }

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let tile = Tile(TILE / 4u * outputs() * group_index(group, groups), TILE * group.z, y_rows());
    if tile.first >= ROWS { return; }
    // What this thread loads into the tiles: a group of eight columns of LOADS lines and of LOADS rows.
    let line = index / TURN;
    let eight = index % TURN;
    let to = line * PITCH + eight;
    let next = WORKGROUP / TURN; // lines from one load to the next
    let last = tile.count - 1u;
    let w_row0 = matrix_row(tile.first, line);
    let w_row1 = matrix_row(tile.first, line + next);
    let w_row2 = matrix_row(tile.first, line + 2u * next);
    let w_row3 = matrix_row(tile.first, line + 3u * next);
    let x_row0 = x_row(min(tile.first_row + line, last));
    let x_row1 = x_row(min(tile.first_row + line + next, last));
    let x_row2 = x_row(min(tile.first_row + line + 2u * next, last));
    let x_row3 = x_row(min(tile.first_row + line + 3u * next, last));
    for (var first_piece = 0u; first_piece < 4u; first_piece += subgroups) {
        let piece = first_piece + subgroup;
        let multiplies = piece < 4u && tile.first_row + rows_of(piece) < tile.count;
        let lines_at = lines_of(piece) * PITCH * ELEMENTS;
        let rows_at = (X_TILE + rows_of(piece) * PITCH) * ELEMENTS;
        // The sums, by row and line. Not an array: that would not stay in registers.
        var c00 = Sums(); var c01 = Sums(); var c02 = Sums(); var c03 = Sums();
        var c10 = Sums(); var c11 = Sums(); var c12 = Sums(); var c13 = Sums();
        var c20 = Sums(); var c21 = Sums(); var c22 = Sums(); var c23 = Sums();
        var c30 = Sums(); var c31 = Sums(); var c32 = Sums(); var c33 = Sums();
        var w0 = w_at(w_row0, eight); var v0 = x_at(x_row0, eight);
        var w1 = w0; var v1 = v0;
        var w2 = w0; var v2 = v0;
        var w3 = w0; var v3 = v0;
        if LOADS > 1u { w1 = w_at(w_row1, eight); v1 = x_at(x_row1, eight); }
        if LOADS > 2u {
            w2 = w_at(w_row2, eight); v2 = x_at(x_row2, eight);
            w3 = w_at(w_row3, eight); v3 = x_at(x_row3, eight);
        }
        for (var i = 0u; i < COLUMNS8; i += TURN) {
            put(to, w0);
            put(X_TILE + to, v0);
            if LOADS > 1u {
                put(to + next * PITCH, w1);
                put(X_TILE + to + next * PITCH, v1);
            }
            if LOADS > 2u {
                put(to + 2u * next * PITCH, w2);
                put(X_TILE + to + 2u * next * PITCH, v2);
                put(to + 3u * next * PITCH, w3);
                put(X_TILE + to + 3u * next * PITCH, v3);
            }
            workgroupBarrier();
            let more = i + TURN + eight;
            w0 = w_at(w_row0, more); v0 = x_at(x_row0, more);
            if LOADS > 1u { w1 = w_at(w_row1, more); v1 = x_at(x_row1, more); }
            if LOADS > 2u {
                w2 = w_at(w_row2, more); v2 = x_at(x_row2, more);
                w3 = w_at(w_row3, more); v3 = x_at(x_row3, more);
            }
            if multiplies {
                const STEP = SIZE * PITCH * ELEMENTS;
                for (var k = 0u; k < TURN * ELEMENTS; k += SIZE / 8u * ELEMENTS) {
                    let x_at = rows_at + k;
                    let w_at = lines_at + k;
                    let a0 = coopLoadT<Left>(&tiles[x_at], PITCH * ELEMENTS);
                    let a1 = coopLoadT<Left>(&tiles[x_at + STEP], PITCH * ELEMENTS);
                    let b0 = coopLoad<Right>(&tiles[w_at], PITCH * ELEMENTS);
                    let b1 = coopLoad<Right>(&tiles[w_at + STEP], PITCH * ELEMENTS);
                    c00 = coopMultiplyAdd(a0, b0, c00);
                    c01 = coopMultiplyAdd(a0, b1, c01);
                    c10 = coopMultiplyAdd(a1, b0, c10);
                    c11 = coopMultiplyAdd(a1, b1, c11);
                    if SIDE > 2u {
                        let a2 = coopLoadT<Left>(&tiles[x_at + 2u * STEP], PITCH * ELEMENTS);
                        let a3 = coopLoadT<Left>(&tiles[x_at + 3u * STEP], PITCH * ELEMENTS);
                        let b2 = coopLoad<Right>(&tiles[w_at + 2u * STEP], PITCH * ELEMENTS);
                        let b3 = coopLoad<Right>(&tiles[w_at + 3u * STEP], PITCH * ELEMENTS);
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
            }
            workgroupBarrier();
        }
        let pieces = vec2(first_piece, min(subgroups, 4u - first_piece));
        let result = piece * RESULTS;
        if piece < 4u { coopStoreT(c00, &results[result], RESULT_PITCH); }
        workgroupBarrier();
        finish_matrices(tile, pieces, 0u, 0u, index);
        workgroupBarrier();
        if piece < 4u { coopStoreT(c01, &results[result], RESULT_PITCH); }
        workgroupBarrier();
        finish_matrices(tile, pieces, 0u, 1u, index);
        workgroupBarrier();
        if piece < 4u { coopStoreT(c10, &results[result], RESULT_PITCH); }
        workgroupBarrier();
        finish_matrices(tile, pieces, 1u, 0u, index);
        workgroupBarrier();
        if piece < 4u { coopStoreT(c11, &results[result], RESULT_PITCH); }
        workgroupBarrier();
        finish_matrices(tile, pieces, 1u, 1u, index);
        workgroupBarrier();
        if SIDE > 2u {
            if piece < 4u { coopStoreT(c02, &results[result], RESULT_PITCH); }
            workgroupBarrier();
            finish_matrices(tile, pieces, 0u, 2u, index);
            workgroupBarrier();
            if piece < 4u { coopStoreT(c03, &results[result], RESULT_PITCH); }
            workgroupBarrier();
            finish_matrices(tile, pieces, 0u, 3u, index);
            workgroupBarrier();
            if piece < 4u { coopStoreT(c12, &results[result], RESULT_PITCH); }
            workgroupBarrier();
            finish_matrices(tile, pieces, 1u, 2u, index);
            workgroupBarrier();
            if piece < 4u { coopStoreT(c13, &results[result], RESULT_PITCH); }
            workgroupBarrier();
            finish_matrices(tile, pieces, 1u, 3u, index);
            workgroupBarrier();
            if piece < 4u { coopStoreT(c20, &results[result], RESULT_PITCH); }
            workgroupBarrier();
            finish_matrices(tile, pieces, 2u, 0u, index);
            workgroupBarrier();
            if piece < 4u { coopStoreT(c21, &results[result], RESULT_PITCH); }
            workgroupBarrier();
            finish_matrices(tile, pieces, 2u, 1u, index);
            workgroupBarrier();
            if piece < 4u { coopStoreT(c22, &results[result], RESULT_PITCH); }
            workgroupBarrier();
            finish_matrices(tile, pieces, 2u, 2u, index);
            workgroupBarrier();
            if piece < 4u { coopStoreT(c23, &results[result], RESULT_PITCH); }
            workgroupBarrier();
            finish_matrices(tile, pieces, 2u, 3u, index);
            workgroupBarrier();
            if piece < 4u { coopStoreT(c30, &results[result], RESULT_PITCH); }
            workgroupBarrier();
            finish_matrices(tile, pieces, 3u, 0u, index);
            workgroupBarrier();
            if piece < 4u { coopStoreT(c31, &results[result], RESULT_PITCH); }
            workgroupBarrier();
            finish_matrices(tile, pieces, 3u, 1u, index);
            workgroupBarrier();
            if piece < 4u { coopStoreT(c32, &results[result], RESULT_PITCH); }
            workgroupBarrier();
            finish_matrices(tile, pieces, 3u, 2u, index);
            workgroupBarrier();
            if piece < 4u { coopStoreT(c33, &results[result], RESULT_PITCH); }
            workgroupBarrier();
            finish_matrices(tile, pieces, 3u, 3u, index);
            workgroupBarrier();
        }
    }
}
