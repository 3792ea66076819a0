// Implements interface `epilogue` for a product that is q, k and v: adds the bias, rotates q and k by their
// position, and writes k and v into the KV cache as well as into y.
override Q: u32;         // values of q in a row of y; KV_WIDTH of k follow, and as many of v
#import turn
#import kv_write
@group(1) @binding(4) var<storage, read_write> cache: array<KvWord>;

// The value of output `output` + j. The other value of a rotated pair is among the four products.
fn finished(position: u32, output: u32, j: u32, product: vec4<f32>) -> f32 {
    let i = FIRST + output + j; // index in the row [q, k, v]
    let value = product[j] + bias(output + j);
    if i >= Q + KV_WIDTH { return value; }
    return turn(position, i, value, product[j ^ 1u] + bias(output + (j ^ 1u)));
}

// Finishes output `output` + j of a row of y; `product` holds the products of four outputs from `output` on.
fn finish(y_row: u32, output: u32, j: u32, product: vec4<f32>, up: vec4<f32>) {
    let row = row_at(y_row);
    let i = FIRST + output + j; // index in the row [q, k, v]
    let value = finished(row.position, output, j, product);
    y[y_row * STRIDE + i] = value;
    if i < Q { return; }
    let number = i - Q; // of all keys and values
    if number % UNIT != 0u { return; }
    var numbers: array<f32, UNIT>;
    numbers[0] = value;
    // At most two at once: the other of the pair.
    if UNIT == 2u { numbers[UNIT - 1u] = finished(row.position, output, j ^ 1u, product); }
    // Values stand where the keys end.
    write_kv(key_of(slot_of(row.sequence, row.position), number), numbers);
}
