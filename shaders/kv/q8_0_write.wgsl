// Implements interface `kv_write` for blocks of 32 signed bytes with a scale: a block is eight words, and the
// scales follow all blocks of a slot's keys, or values.
#import kv
alias KvWord = u32;
const UNIT = 32u;
fn write_kv(at: u32, numbers: array<f32, UNIT>) {
    var block = numbers;
    var top = 0.0;
    for (var i = 0u; i < UNIT; i++) { top = max(top, abs(block[i])); }
    let scale = top / 127.0;
    let by = select(1.0 / scale, 0.0, top == 0.0);
    let words = at / KV_WIDTH * (KV_WIDTH / 4u + KV_WIDTH / UNIT);
    let number = at % KV_WIDTH;
    for (var i = 0u; i < UNIT; i += 4u) {
        let quants = floor(vec4(block[i], block[i + 1u], block[i + 2u], block[i + 3u]) * by + 0.5);
        let bytes = vec4<u32>(vec4<i32>(quants)) & vec4(255u);
        cache[words + (number + i) / 4u] = bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
    }
    cache[words + KV_WIDTH / 4u + number / UNIT] = bitcast<u32>(scale);
}
