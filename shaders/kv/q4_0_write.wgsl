// Implements interface `kv_write` for blocks of 32 numbers from 0 to 15 with a scale: 0 stands for the number
// that is farthest from zero, 8 for zero. A block is four words, and the scales follow all blocks of a slot's
// keys, or values.
#import kv
alias KvWord = u32;
const UNIT = 32u;
fn write_kv(at: u32, numbers: array<f32, UNIT>) {
    var block = numbers;
    var top = 0.0;
    for (var i = 0u; i < UNIT; i++) { top = select(top, block[i], abs(block[i]) > abs(top)); }
    let scale = top / -8.0;
    let by = select(1.0 / scale, 0.0, top == 0.0);
    let words = at / KV_WIDTH * (KV_WIDTH / 8u + KV_WIDTH / UNIT);
    let number = at % KV_WIDTH;
    for (var i = 0u; i < UNIT; i += 8u) {
        var word = 0u;
        for (var j = 0u; j < 8u; j++) {
            word |= min(u32(max(floor(block[i + j] * by + 8.5), 0.0)), 15u) << (4u * j);
        }
        cache[words + (number + i) / 8u] = word;
    }
    cache[words + KV_WIDTH / 8u + number / UNIT] = bitcast<u32>(scale);
}
