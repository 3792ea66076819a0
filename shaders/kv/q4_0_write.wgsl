// Implements interface `kv_write` for blocks of 32 numbers from 0 to 15 with a scale: 0 stands for the number
// that is farthest from zero, 8 for zero. A block is 16 bytes, each with a number of the first half and, in
// its upper bits, the one 16 after it. The scales follow all blocks of a slot's keys, or values.
#import kv
alias KvWord = u32;
const UNIT = 32u;
fn quant(number: f32) -> u32 { return min(u32(max(floor(number + 8.5), 0.0)), 15u); }
fn write_kv(at: u32, numbers: array<f32, UNIT>) {
    var block = numbers;
    var top = 0.0;
    for (var i = 0u; i < UNIT; i++) { top = select(top, block[i], abs(block[i]) > abs(top)); }
    let scale = top / -8.0;
    let by = select(1.0 / scale, 0.0, top == 0.0);
    let words = at / KV_WIDTH * (KV_WIDTH / 8u + KV_WIDTH / UNIT);
    let number = at % KV_WIDTH;
    for (var i = 0u; i < 16u; i += 4u) {
        var word = 0u;
        for (var j = 0u; j < 4u; j++) {
            word |= (quant(block[i + j] * by) | (quant(block[16u + i + j] * by) << 4u)) << (8u * j);
        }
        cache[words + number / 8u + i / 4u] = word;
    }
    cache[words + KV_WIDTH / 8u + number / UNIT] = bitcast<u32>(scale);
}
