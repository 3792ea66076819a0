// interface `epilogue`: from products to q, k and v: q and k turned by their position, k and v written into the
// cache too.
override Q: u32;         // values of q in a row of y
override KV: u32;        // and of k, and of v
#import turn
@group(1) @binding(4) var<storage, read_write> cache: array<f32>;

// The j-th of the four outputs from `output` on. A pair that turns lies within the four.
fn finish(y_row: u32, output: u32, j: u32, product: vec4<f32>, up: vec4<f32>) {
    let row = row_at(y_row);
    let i = FIRST + output + j; // its place among q, k and v
    var value = product[j] + bias(output + j);
    if i < Q + KV { value = turn(row.position, i, value, product[j ^ 1u] + bias(output + (j ^ 1u))); }
    y[y_row * STRIDE + i] = value;
    if i >= Q { cache[slot_of(row.sequence, row.position) * 2u * KV + i - Q] = value; }
}
